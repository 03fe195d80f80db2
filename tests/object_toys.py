"""Objects as other programs write them."""

from __future__ import annotations

from pathlib import Path

from lateen.objects import ObjectPath
from lateen.objects.client import Key, file_system, forget


def copy_in(folder: Path, target: ObjectPath) -> ObjectPath:
    """Put every file of a folder below ``target``."""
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            put(target / str(file.relative_to(folder)), file.read_bytes())
    return target


def put(path: Path, data: bytes) -> None:
    """Write an object as another program would, in one request."""
    key = Key(str(path))
    with file_system(key).open_output_stream(key.within) as stream:
        stream.write(data)
    forget(key)
