"""What libraries and your own code raise, as one error that names where it came from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lateen.errors import EncoderError, LateenError, is_out_of_memory, reason


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
        "Check that the folder is whole; a class outside transformers needs trust_remote_code, and "
        "code written for an older transformers an environment that has it (python).",
    )


def probing(name: str) -> contextlib.AbstractContextManager[None]:
    """Around an encoder's first forward pass: its failure says that the encoder does not fit."""
    return explained(
        f"{name} loads, but fails on a first input",
        "Check that the folder's files belong together; a model of another kind needs an "
        "encoder of your own (package.module:function).",
    )
