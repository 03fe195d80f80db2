"""One file per tool of the field that a model is handed over to.

A module here has a function ``export(model, out)``; its name is the tool's, as on the command line,
and the first line of its docstring says what the tool gets. Nothing else has to know of it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from lateen.exports import module_summaries

if TYPE_CHECKING:
    from lateen.model import AlignedModel


class Tool(Protocol):
    """What a module of this package gives."""

    def export(self, model: AlignedModel, out: Path) -> None:
        """Write a model for the tool to read."""


def tools() -> dict[str, str]:
    """Every tool's name, and what it gets; nothing is imported."""
    return module_summaries(__path__)


def tool(name: str) -> Tool:
    """The module of a tool, by its name."""
    return cast(Tool, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))
