"""Names that a package gives its users, loaded when they are first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def exported(
    package: str, homes: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], list[str]]:
    """A package's ``__getattr__`` and ``__all__``, so that importing it loads nothing.

    Type checkers do not run this: a package that uses it also imports the names below
    ``if TYPE_CHECKING``, and a test sees that both say the same.

    Args:
        package: its name, for errors.
        homes: the module that names come from, and the names.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def load(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(home_of[name]), name)

    return load, sorted(home_of)
