"""What a result is about, in a word or two."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

Result = Mapping[str, Any]

# Folders and files that say nothing of what is in them; then the folder above is named.
_NAMELESS = {"data", "images", "test", "train", "val", "valid", "validation"}
_SOURCES = ("data", "captions", "images")


def subject(result: Result) -> str:
    """What was evaluated on, in a word or two: the set's name, or that of its file or folder."""
    name = result.get("set")
    if result.get("task") in ("segmentation", "patch-probe") and name:
        name = str(name).partition(" (")[0]  # of a published set its folder is behind the name
    options = result.get("options", {})
    named = (options[key] for key in _SOURCES if isinstance(options.get(key), str))
    path = PurePath(str(name or next(named, "")))
    return path.parent.name if path.stem in _NAMELESS and path.parent.name else path.name


def subject_and_split(result: Result) -> str:
    """The same, with the split if there is one: ``flickr30k, test``."""
    split = result.get("split") or result.get("options", {}).get("split")
    return ", ".join(part for part in (subject(result), split) if part)
