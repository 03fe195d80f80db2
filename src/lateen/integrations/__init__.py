"""One file per tool of the field that a model is handed over to.

A module here has a function ``export(model, out)``; its name is the tool's, as on the command line,
and the first line of its docstring says what the tool gets. Nothing else has to know of it. It may
have more:

* ``MARKS``: then ``out`` is a folder, and these are the files by which one that was exported before
  is known (:func:`lateen.files.refuse_foreign`); ``BESIDE``: what a killed export may have left.
* keyword arguments of ``export``: ``encoders``, whether to copy the encoders' files;
  ``query_bank``, whether to take the model's along; ``results``, what a model card is to show
  (:class:`lateen.model.CardResult`).

Benchmark programs, for which nothing is written, are in ``harnesses/``.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateen.errors import LateenError, UsageError, choices
from lateen.exports import module_summaries
from lateen.files import check_file, refuse_foreign

if TYPE_CHECKING:
    from lateen.model import AlignedModel, CardResult


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

    def check_place(self, out: Path, overwrite: bool) -> None:
        """See that nothing is lost when a model is written.

        Args:
            out: where to.
            overwrite: whether an earlier export may be replaced.

        Raises:
            UsageError: it holds something else, or a model that is not to be replaced.
        """
        if not self.marks:
            check_file(out, overwrite)
            return
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out} is a file", "Give the name of a folder.")
        refuse_foreign(out, "the folder of a model", self.marks, self.beside, error=UsageError)
        if not any((out / mark).exists() for mark in self.marks):
            return
        if self.name == "lateen":  # whose mark every model of transformers has
            check_free(out, overwrite)
        elif not overwrite:
            raise _holds_a_model(out)


def export(
    model: AlignedModel | str | Path,
    *,
    to: str,
    out: str | Path,
    encoders: bool = False,
    query_bank: bool = True,
    results: Sequence[CardResult] = (),
    int8: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a model for another tool to read.

    Args:
        model: an aligned model, its folder, or a plain CLIP or SigLIP by folder or hub id.
        to: the tool, one of :func:`tools`.
        out: a folder; for ``sail`` a file.
        encoders: for ``lateen``: also copy the files of both encoders.
        query_bank: for ``lateen``: take the model's query bank along, if it carries one.
        results: for a model card.
        int8: for ``onnx``: also write graphs whose weights are bytes.
        overwrite: replace what an earlier call wrote.

    Returns:
        ``out``.

    Raises:
        UsageError: there is no such tool, it takes no such argument, or ``out`` holds something.
        ModelError: the model cannot be handed to it; the reason is told.
        MissingExtraError: a package is not installed.
    """
    from lateen.model import AlignedModel, open_model

    if to not in tools():
        raise UsageError(f"there is no tool {to!r} to export to", choices(to, list(tools())))
    target, place = tool(to), Path(out)
    asked = {"encoders": encoders, "results": tuple(results), "int8": int8}
    for name, value in asked.items():
        if value and name not in target.options:
            raise UsageError(f"an export to {to} has no {name}", f"Leave {name} out.")
    target.check_place(place, overwrite)
    ready = model if isinstance(model, AlignedModel) else open_model(model)
    given = {**asked, "query_bank": query_bank}
    target.export(ready, place, **{name: given[name] for name in target.options})
    return place


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


def check_free(folder: Path, overwrite: bool) -> None:
    """See that nothing is lost when a model is saved in ``folder``."""
    from lateen.model.config import read_config  # which needs torch

    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        read_config(folder)
    except LateenError as error:
        raise UsageError(
            f"{folder} exists and is no folder of a model", "Choose another --out."
        ) from error
    if not overwrite:
        raise _holds_a_model(folder)


def _holds_a_model(folder: Path) -> UsageError:
    return UsageError(
        f"{folder} already holds a model", "Choose another --out, or replace it: --overwrite."
    )
