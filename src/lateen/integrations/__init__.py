"""One file per tool of the field that a model is handed over to.

A module here has a function ``export(model, out)``; its name is the tool's, as on the command line,
and the first line of its docstring says what the tool gets. Nothing else has to know of it. It may
have more:

* ``MARKS``: then ``out`` is a folder, and these are the files by which one that was exported before
  is known (:func:`lateen.files.refuse_foreign`); ``BESIDE``: what a killed export may have left.
* keyword arguments of ``export``: ``encoders``, whether to copy the encoders' files;
  ``query_bank``, whether to take the model's along; ``results``, what a model card is to show
  (:class:`lateen.model.CardResult`).
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateen.exports import module_summaries

if TYPE_CHECKING:
    from lateen.model import AlignedModel


@dataclass(frozen=True)
class Tool:
    """A tool, and what its module says.

    Attributes:
        name: as on the command line.
        marks: the files by which a folder of an earlier export is known; empty for a single file.
        beside: what a killed export may have left.
        options: the keyword arguments that its ``export`` takes.
    """

    name: str
    marks: tuple[str, ...]
    beside: tuple[str, ...]
    options: tuple[str, ...]

    def export(self, model: AlignedModel, out: Path, **options: Any) -> None:
        """Write a model for the tool to read.

        Args:
            model: an aligned model.
            out: a file, or a folder if there are :attr:`marks`.
            options: some of :attr:`options`.
        """
        _module(self.name).export(model, out, **options)


def tools() -> dict[str, str]:
    """Every tool's name, and what it gets; nothing is imported."""
    return module_summaries(__path__)


def tool(name: str) -> Tool:
    """A tool, by its name."""
    module = _module(name)
    marks: Sequence[str] = getattr(module, "MARKS", ())
    beside: Sequence[str] = getattr(module, "BESIDE", ())
    options = list(inspect.signature(module.export).parameters)[2:]
    return Tool(name, tuple(marks), tuple(beside), tuple(options))


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
