"""What commands print: tables for people, one JSON value for machines."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from lateen.errors import UsageError

if TYPE_CHECKING:
    from lateen.report.tables import TableData

Markup = Literal["markdown", "latex"]
TableFormat = Annotated[
    Literal["table", "markdown", "latex"] | None,
    Parameter(help="print the tables alone; latex needs the package booktabs (table)"),
]
FiguresFolder = Annotated[
    Path | None, Parameter(help="folder for the plots as SVG and PDF, for a paper")
]


def process_leads() -> bool:
    """Whether this process speaks, and writes what is not training's own: of several that
    ``torchrun`` started, the first."""
    return os.environ.get("RANK", "0") == "0"


def say(text: str) -> None:
    """One line on standard output."""
    sys.stdout.write(text + "\n")


def say_skipped(skipped: Sequence[Mapping[str, str]]) -> None:
    """One line on the images that could not be read, if there are any."""
    if skipped:
        first = skipped[0]
        say(f"{len(skipped)} images could not be read, the first: {first['id']}: {first['reason']}")


def show_json(value: Any) -> None:
    """``value`` as indented JSON on standard output."""
    say(json.dumps(value, indent=2, ensure_ascii=False))


def markup_of(form: str | None, *, json: bool) -> Markup | None:
    """The markup that ``--format`` asks for, if it asks for one.

    Raises:
        UsageError: ``--json`` is given, too.
    """
    if json and form is not None:
        raise UsageError(f"--json and --format {form} are two forms", "Give one of them.")
    return "markdown" if form == "markdown" else "latex" if form == "latex" else None


def show_markup(markup: Markup, *tables: TableData) -> None:
    """Tables on standard output as Markdown or LaTeX, and nothing else."""
    texts = [table.latex() if markup == "latex" else table.markdown() for table in tables]
    say("\n".join(texts).rstrip("\n"))


def width() -> int:
    """Characters of a line on standard output, 100 where it is no terminal. Not below 60, where
    tables lose whole columns: lines are then broken by the terminal."""
    return max(60, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 100


def show_table(*tables: TableData) -> None:
    """Tables on standard output, sized to the terminal."""
    from rich.console import Console

    console = Console(file=sys.stdout, width=width())
    for table in tables:
        # Too wide for the terminal, it goes on in the next line rather than lose digits.
        console.print(table.rich(), crop=False)
