"""What a package gives its users, known before it is loaded: names, and modules that are found."""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

_Entry = TypeVar("_Entry")


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


class Registry(Mapping[str, _Entry]):
    """What the modules of a package define under one name, each loaded when it is asked for.

    Args:
        package: whose modules they are; see :func:`module_summaries` for their names.
        attribute: the name.
    """

    def __init__(self, package: ModuleType, attribute: str) -> None:
        self._package = package
        self._attribute = attribute

    def __iter__(self) -> Iterator[str]:
        return iter(self.summaries())

    def __len__(self) -> int:
        return len(self.summaries())

    def __contains__(self, name: object) -> bool:
        return name in self.summaries()  # without loading it

    def __getitem__(self, name: str) -> _Entry:
        if name not in self.summaries():
            raise KeyError(name)
        module = importlib.import_module(f"{self._package.__name__}.{name.replace('-', '_')}")
        entry: _Entry = getattr(module, self._attribute)
        return entry

    def summaries(self) -> dict[str, str]:
        """Every name and summary, read from the files: nothing is imported."""
        return module_summaries(self._package.__path__)


def module_summaries(path: Iterable[str]) -> dict[str, str]:
    """The modules of a package that is a registry: name, with dashes → first line of its docstring.

    The files are read and not run. Modules whose names begin with ``_`` do not count, nor packages.

    Args:
        path: the package's ``__path__``.
    """
    return dict(_summaries(tuple(path)))


@functools.cache
def _summaries(path: tuple[str, ...]) -> dict[str, str]:
    summaries = {}
    for module in pkgutil.iter_modules(path):
        if not module.name.startswith("_") and not module.ispkg:
            spec = module.module_finder.find_spec(module.name, None)
            source = Path(str(spec and spec.origin)).read_text(encoding="utf-8")
            docstring = ast.get_docstring(ast.parse(source)) or ""
            summaries[module.name.replace("_", "-")] = docstring.partition("\n")[0].rstrip(".")
    return summaries
