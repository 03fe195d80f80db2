"""Small files beside a model's weights: arrays, and a line of JSON that says what they are."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lateen.errors import ModelError
from lateen.files import atomic_path

Array = np.ndarray[Any, Any]
_DAMAGE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


def write_record(
    path: Path, version: int, about: Mapping[str, Any], arrays: Mapping[str, Any]
) -> None:
    """Write a record, whole or not at all.

    Args:
        path: an ``.npz`` file.
        version: of its format.
        about: JSON values.
        arrays: by name.
    """
    said = json.dumps({"version": version, **about}, sort_keys=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **{"about": np.array(said), **arrays})


@contextmanager
def open_record(
    path: Path, version: int, fault: str, remedy: str
) -> Iterator[tuple[dict[str, Any], Mapping[str, Array]]]:
    """What :func:`write_record` was told: ``about``, and the arrays, read as they are asked for.

    What is made of them in the block may fail as reading does: that is damage, too.

    Args:
        path: the file.
        version: the one that is read.
        fault: what a damaged file is, after its name.
        remedy: for it.

    Raises:
        ModelError: it is damaged, or of a later version.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            if about["version"] != version:
                raise ModelError(
                    f"{path} has version {about['version']}, this lateen reads {version}",
                    "Use the lateen version that wrote it.",
                )
            yield about, file
    except _DAMAGE as error:
        raise ModelError(f"{path} is {fault} ({error})", remedy) from error
