"""Strict configuration sections, and how YAML becomes values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from lateen.errors import RecipeError


class Section(BaseModel):
    """Strict, frozen values: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def read_yaml(path: Path, kind: str) -> Any:
    """The value in a YAML file, ``None`` if it is empty.

    Args:
        path: the file.
        kind: what it should be, for the error of its absence.

    Raises:
        RecipeError: there is no such file, or it is not YAML.
    """
    if not path.is_file():
        raise RecipeError(f"there is no {kind} {path}", "Give the path of a YAML file.")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{path} is not valid YAML: {' '.join(str(error).split())}", "Correct that line."
        ) from error
