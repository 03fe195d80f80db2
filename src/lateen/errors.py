"""Every error that lateen raises on purpose.

::

    LateenError                 anything that stopped, with a remedy (exit 1)
    ├── UsageError              the request itself is wrong (exit 2)
    │   ├── RecipeError         a recipe key or value
    │   └── MissingExtraError   an optional package is not installed
    ├── DataError               images, captions, tables, shards of a dataset
    │   └── ImageError          one image that cannot be decoded
    ├── StoreError              a feature store: truncated, foreign, wrong dim
    │   └── PairingError        two stores whose ids do not match
    ├── EncoderError            an encoder: not found, no such pooling or layer
    │   └── EncoderEndedError   the process in another environment that ran one is gone
    ├── ModelError              an AlignedModel: unknown keys, missing tensors
    ├── TrainingError           NaN loss, not enough data
    ├── ObjectStoreError        an object store cannot be reached, or refuses
    └── BusyError               another process writes to the same folder

Each error is one sentence on what is wrong and one on what to do about it.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator

# torch says it in words alone, on a CPU and on a GPU.
_OUT_OF_MEMORY = re.compile(
    "can't allocate memory|out of memory|not enough memory: you tried|_ALLOC_FAILED", re.IGNORECASE
)


class LateenError(Exception):
    """Something lateen cannot go on with.

    Args:
        message: what is wrong: the value, and the rule it breaks.
        remedy: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message.rstrip('.')}. {remedy}".strip() if remedy else message)


class UsageError(LateenError):
    """The request itself is wrong: an option, a name, a combination."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe has an unknown key or a value that does not fit."""


class MissingExtraError(UsageError):
    """An optional package is needed and not installed.

    Args:
        package: the import name of the package.
        extra: the lateen extra that brings it; ``None`` for one that is installed by itself.
        purpose: what it is needed for.
    """

    def __init__(self, package: str, extra: str | None, purpose: str) -> None:
        wanted = package if extra is None else f"'lateen[{extra}]'"
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed",
            f"Install it with: pip install {wanted}",
        )


class DataError(LateenError):
    """A dataset cannot be read as asked."""


class ImageError(DataError):
    """One image cannot be decoded; the message is the reason recorded for it."""


class StoreError(LateenError):
    """A feature store is truncated, foreign, or does not fit what it is used for."""


class PairingError(StoreError):
    """Two stores do not describe the same samples."""


class EncoderError(LateenError):
    """An encoder cannot be found, loaded or pooled as asked."""


class EncoderEndedError(EncoderError):
    """The process that ran an encoder has ended: smaller batches will not bring it back."""


class ModelError(LateenError):
    """A saved AlignedModel is not what its config says, or inputs do not fit it."""


class TrainingError(LateenError):
    """Training cannot start or go on."""


class ObjectStoreError(LateenError):
    """An object store cannot be reached, or refuses; what is there is not known."""


class BusyError(LateenError):
    """Another process is writing to the same folder."""


class Faults:
    """Errors that are collected, so that whoever made several mistakes learns of them at once."""

    def __init__(self) -> None:
        self._errors: dict[str, LateenError] = {}

    @contextlib.contextmanager
    def note(self) -> Iterator[None]:
        """Keep the error that what is done inside ends with."""
        try:
            yield
        except LateenError as error:
            self._errors.setdefault(str(error), error)

    def raise_all(self) -> None:
        """Raise what was noted, if anything: several as one error of the first one's kind."""
        if not self._errors:
            return
        first, *others = self._errors.values()
        if not others:
            raise first
        listed = " ".join(f"({i}) {each}" for i, each in enumerate(self._errors, start=1))
        kind = UsageError if isinstance(first, MissingExtraError) else type(first)
        raise kind(f"{len(self._errors)} things are wrong: {listed}") from first


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """What is likely meant by ``word``; ``None`` if nothing is like it."""
    return next(iter(difflib.get_close_matches(word, list(valid), n=1, cutoff=0.6)), None)


def choices(word: str, valid: Iterable[str]) -> str:
    """One sentence that names the valid choices, the nearest to ``word`` first if there is one."""
    names = list(valid)
    listed = f"Choose one of: {', '.join(names)}." if names else "There is nothing to choose from."
    near = nearest(word, names)
    return listed if near is None else f"Did you mean {near!r}? {listed}"


def reason(error: BaseException) -> str:
    """The first line of an error's message that says something; else what kind of error it is."""
    lines = (line.strip() for line in str(error).splitlines())
    return next(filter(None, lines), type(error).__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was short, the machine's or an accelerator's."""
    return isinstance(error, MemoryError) or bool(_OUT_OF_MEMORY.search(str(error)))
