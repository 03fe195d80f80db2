"""What libraries and your own code raise, as one error that names where it came from."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lateen.encoders.base import Encoder
from lateen.errors import EncoderError, LateenError, is_out_of_memory, reason

TRACE = "Its trace is shown with --debug."


@contextlib.contextmanager
def explained(what: str, remedy: str, *, kind: bool = False) -> Iterator[None]:
    """Whatever fails inside becomes one error: ``what``, and the first line of its message.

    What lateen itself raises goes on as it is, and so does that memory is short.

    Args:
        what: what failed, with the file or class that it came from.
        remedy: what the user can do about it.
        kind: also say what kind of error it is, as for code of the user's own.

    Raises:
        EncoderError: something failed.
    """
    try:
        yield
    except LateenError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        said, name = reason(error), type(error).__name__
        said = f"{name}: {said}" if kind and said != name else said
        raise EncoderError(f"{what}: {said}", remedy) from error


def loading(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Around what reads an encoder's files: its failure names their folder."""
    return explained(
        f"cannot load the encoder in {folder}",
        "Check that the folder is whole; a class outside transformers needs trust_remote_code.",
    )


def probing(name: str) -> contextlib.AbstractContextManager[None]:
    """Around an encoder's first forward pass: its failure says that the encoder does not fit."""
    return explained(
        f"{name} loads, but fails on a first input",
        "Check that the folder's files belong together; a model of another kind needs an "
        "encoder of your own (package.module:function).",
    )


def guard(encoder: Encoder, name: str) -> None:
    """Have what your own encoder raises, or gives in a wrong shape, said with its class and method.

    The object stays what it is, with its own attributes. What ``prepare`` raises for an image is
    left alone: it is recorded as the reason why that image is left out.

    Args:
        encoder: the methods of which are replaced.
        name: of the factory that made it.
    """
    dim, text = encoder.info.dim, encoder.info.modality == "text"
    checks: dict[str, Callable[[Any, int], str]] = {
        "prepare": _unprepared,
        "encode": functools.partial(_misshapen, wanted=[dim]),
        "encode_patches": functools.partial(_misshapen, wanted=[None, dim]),
    }
    for method, wrong in checks.items():
        call = getattr(encoder, method, None)
        if call is None or getattr(call, "guards", False):
            continue
        where = f"{name} failed in {type(encoder).__name__}.{method}"
        # A class with __slots__ has no place for it, and goes without.
        with contextlib.suppress(AttributeError):
            setattr(encoder, method, _guarded(call, where, wrong, text or method != "prepare"))


def _guarded(
    call: Callable[[Any], Any], where: str, wrong: Callable[[Any, int], str], explain: bool
) -> Callable[[Any], Any]:
    @functools.wraps(call)
    def guarded(items: Any) -> Any:
        own = explained(where, TRACE, kind=True)
        with own if explain else contextlib.nullcontext():
            given = call(items)
        if problem := wrong(given, len(items)):
            raise EncoderError(
                f"{where}: it gave {problem}", "See lateen.encoders.base.Encoder for what it is to."
            )
        return given

    guarded.guards = True  # type: ignore[attr-defined]
    return guarded


def _unprepared(given: Any, items: int) -> str:
    count = len(given) if hasattr(given, "__len__") else None
    return "" if count == items else f"{_described(given)} for {items} items, not one for each"


def _misshapen(given: Any, items: int, *, wanted: list[int | None]) -> str:
    """What is wrong with features that are to be ``[items, *wanted]``; ``None`` is any number."""
    shape = [items, *wanted]
    has = list(given.shape) if isinstance(given, torch.Tensor) else []
    if len(has) == len(shape) and all(w in (None, n) for w, n in zip(shape, has, strict=True)):
        return ""
    named = ", ".join("patches" if size is None else str(size) for size in shape)
    return f"{_described(given)} where [{named}] is due"


def _described(given: Any) -> str:
    if isinstance(given, torch.Tensor):
        return f"features {list(given.shape)}"
    counted = f" of {len(given)}" if hasattr(given, "__len__") else ""
    return f"a {type(given).__name__}{counted}"
