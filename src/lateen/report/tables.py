"""Tables of results: one set of rows for the terminal, for Markdown, for LaTeX and for HTML."""

from __future__ import annotations

import re
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lateen.report import chance
from lateen.report.text import beyond_pdflatex, escape_latex, plain, render

if TYPE_CHECKING:
    from rich.table import Table


STAR = "★"  # behind the best value of a row
INTERVAL = "95 % interval"  # how one is called, in a row or in a note
_DIGITS = 6  # of numbers in files: enough for whatever is measured, too few for float noise
_NAMES = 8  # characters that words have in a terminal, however narrow it is
Cell = str | int | float | None
_BANK = "with the query bank"
_ARROWS = {"text_to_image": "text → image", "image_to_text": "image → text"}


def number(value: Cell, decimals: int) -> str:
    """A number with thousands separators and fixed decimals; ``–`` where there is none."""
    if value is None:
        return "–"
    return plain(value) if isinstance(value, str) else f"{value:,.{decimals}f}"


def rounded(value: float) -> float:
    """A number for a spreadsheet: six significant digits, 41.3 for 41.300000000000004."""
    return float(f"{value:.{_DIGITS}g}")


def over_seeds(values: Sequence[float], decimals: int = 1) -> str:
    """Mean and standard deviation as ``41.3 ± 0.4``; of one seed the value alone."""
    mean = f"{statistics.mean(values):.{decimals}f}"
    return f"{mean} ± {statistics.stdev(values):.{decimals}f}" if len(values) > 1 else mean


def fact(value: object) -> str:
    """A single value: counts with thousands separators; a seed or an id is given as a string."""
    if value is None:
        return "–"
    return f"{value:,}" if type(value) is int else plain(value)


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading, with its unit.

    Attributes:
        name: the heading; a line break in it counts on the terminal.
        decimals: makes it a column of right-aligned numbers.
        whole: its cells are never broken over lines in the terminal.
    """

    name: str
    decimals: int | None = None
    whole: bool = False

    def show(self, cell: Cell) -> str:
        """The cell as text."""
        if self.decimals is not None:
            return number(cell, self.decimals)
        return "" if cell is None else plain(cell)


@dataclass(frozen=True)
class TableData:
    """Rows of a table, and the ways to show them.

    Attributes:
        title: what the table is about.
        columns: the headings; without any name there is no heading row.
        rows: cells, one for each column.
        note: one sentence on how to read it, or the conditions of the numbers.
        reference: indices of rows that are there for comparison only (the chance level).
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    reference: Collection[int] = ()

    def cells(self) -> list[list[str]]:
        """The rows as text."""
        return [
            [column.show(cell) for column, cell in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    @property
    def _headed(self) -> bool:
        return any(column.name for column in self.columns)

    def rich(self) -> Table:
        """For the terminal."""
        from rich import box
        from rich.cells import cell_len
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=Text(plain(self.title)) if self.title else None,
            caption=Text(plain(self.note)) if self.note else None,
            title_style="bold",
            caption_style="dim",
            title_justify="left",
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            show_header=self._headed,
            show_edge=False,
        )
        rows = self.cells()
        for column, *shown in zip(self.columns, *rows, strict=True):
            widest = max(map(cell_len, shown), default=0)
            table.add_column(
                Text(column.name),
                justify="left" if column.decimals is None else "right",
                overflow="fold",
                no_wrap=column.whole,
                min_width=widest if column.whole else min(widest, _NAMES),
            )
        for index, row in enumerate(rows):
            style = "dim" if index in self.reference else None
            # Text, not str: brackets in a caption are no markup.
            table.add_row(*map(Text, row), style=style)
        return table

    def markdown(self) -> str:
        """As a GitHub-flavoured Markdown table, with title and note around it."""
        sides = ["---" if column.decimals is None else "---:" for column in self.columns]
        heads = [_markdown(plain(column.name)) for column in self.columns]
        body = [[_markdown(cell) for cell in row] for row in self.cells()]
        lines = ["| " + " | ".join(row) + " |" for row in [heads, sides, *body]]
        above = [f"**{_markdown(plain(self.title))}**", ""] if self.title else []
        below = ["", _markdown(plain(self.note))] if self.note else []
        return "\n".join([*above, *lines, *below]) + "\n"

    def latex(self) -> str:
        """As a LaTeX ``table`` with the rules of booktabs, its title and note as the caption.

        Where a cell has a star, its value is bold instead, without an interval behind it. What
        pdfLaTeX cannot set (Chinese, say) stays, and a comment on top says so.
        """
        sides = "".join("l" if column.decimals is None else "r" for column in self.columns)
        body = [_latex_row(map(_latex_cell, row)) for row in self.cells()]
        if self._headed:
            heads = _latex_row(escape_latex(column.name) for column in self.columns)
            body = [heads, "    \\midrule", *body]
        note = self.note.replace(STAR, "Bold")
        title = f"{self.title.rstrip('.')}." if self.title and note else self.title
        caption = escape_latex(f"{title} {note}")
        lines = [
            r"\begin{table}[tbp]",
            r"  \centering",
            *([f"  \\caption{{{caption}}}"] if caption else []),
            f"  \\begin{{tabular}}{{{sides}}}",
            r"    \toprule", *body, r"    \bottomrule",
            r"  \end{tabular}",
            r"\end{table}",
        ]  # fmt: skip
        head = ["% needs \\usepackage{booktabs}"]
        if others := beyond_pdflatex("".join(lines)):
            head.append(f"% needs XeLaTeX or LuaLaTeX, and a font that has {others}")
        return "\n".join([*head, *lines]) + "\n"

    def html(self) -> str:
        """As an HTML ``<figure>`` around a ``<table>``; everything in it is escaped."""
        return render("table.html.j2", table=self, headed=self._headed, rows=self.cells())


def interval_row(result: Mapping[str, Any], paths: Iterable[str]) -> list[list[Cell]]:
    """A row with the 95 % interval of each number, or no row where a result has none.

    Args:
        result: with ``intervals``, low and high by key path.
        paths: of the numbers in the row; one that is not there leaves its cell empty.
    """
    intervals = result.get("intervals") or {}
    cells = [interval_cell(intervals.get(path)) for path in paths]
    return [[INTERVAL, *cells]] if any(cells) else []


def interval_cell(interval: Sequence[float] | None, digits: int = 1) -> str:
    """Low and high as ``19.8–25.1``; nothing where there is no interval."""
    return f"{interval[0]:,.{digits}f}–{interval[1]:,.{digits}f}" if interval else ""


def signed(value: float) -> str:
    """A difference with its sign, one decimal: ``+1.2``, ``−0.4``, ``0.0``."""
    text = f"{value:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


def difference_range(interval: Sequence[float] | None) -> str:
    """The interval of a difference, in points, as ``+2.9 to +5.5``; nothing where there is none."""
    return " to ".join(map(signed, interval)) if interval else ""


def retrieval_table(result: Mapping[str, Any], title: str = "Retrieval") -> TableData:
    """Recall@k and median rank both ways, each above the level of chance.

    Args:
        result: ``{"text_to_image": {"R@1": …, "median_rank": …}, "image_to_text": {…},
            "images": n, "captions": m}``, recalls in percent; ``"with_bank"`` has the same with a
            query bank.
        title: what was evaluated.
    """
    images, captions = int(result["images"]), int(result["captions"])
    pools = {"text_to_image": (images, 1.0), "image_to_text": (captions, captions / images)}
    depths = [key for key in result["text_to_image"] if key.startswith("R@")]
    rows: list[list[Cell]] = []
    for direction, (candidates, relevant) in pools.items():
        measured = result[direction]
        rows.append([_ARROWS[direction], *(measured[key] for key in depths)])
        rows[-1].append(measured.get("median_rank"))
        rows += interval_row(result, (f"{direction}.{key}" for key in (*depths, "median_rank")))
        if beside := result.get("with_bank"):
            paths = [f"with_bank.{direction}.{key}" for key in (*depths, "median_rank")]
            of_bank = beside[direction]
            rows.append([_BANK, *(of_bank[key] for key in (*depths, "median_rank"))])
            rows += interval_row(result, paths)
        guesses = (chance.recall_at_k(int(key[2:]), candidates, relevant) for key in depths)
        rows.append(["chance", *guesses, chance.median_rank(candidates, relevant)])
    return TableData(
        title,
        [Column(""), *(Column(f"{key} (%)", 1) for key in depths), Column("median rank", 1)],
        rows,
        f"{images:,} images, {captions:,} captions.{_bank_note(result)}",
        reference=tuple(
            at for at, row in enumerate(rows) if row[0] not in (*_ARROWS.values(), _BANK)
        ),
    )


def classification_table(
    result: Mapping[str, Any], title: str = "Zero-shot classification"
) -> TableData:
    """Top-1 and top-5 accuracy above the level of chance.

    Args:
        result: ``{"top1": …, "top5": …, "per_class": {name: …}}`` in percent; ``"classes"`` where
            some class has no image and so no accuracy; ``"images"`` and ``"mean_per_class"`` if
            known; ``"with_bank"`` has the same with a query bank.
        title: what was evaluated.
    """
    per_class = result["per_class"].values()
    classes = int(result.get("classes", len(per_class)))
    images = f"{result['images']:,} images, " if "images" in result else ""
    guess = chance.top_k(1, classes)
    means = [("mean per class (%)", result["mean_per_class"])] if "mean_per_class" in result else []
    names = ["top-1 (%)", "top-5 (%)", *(name for name, _ in means), "lowest class (%)"]
    paths = ["top1", "top5", *("mean_per_class" for _ in means)]
    rows: list[list[Cell]] = [
        ["zero-shot", *(result.get(path) for path in paths), min(per_class)],
        *interval_row(result, [*paths, ""]),
    ]
    if beside := result.get("with_bank"):
        lowest = min(beside["per_class"].values())
        rows.append([_BANK, *(beside.get(path) for path in paths), lowest])
        rows += interval_row(result, [*(f"with_bank.{path}" for path in paths), ""])
    rows.append(["chance", guess, chance.top_k(5, classes), *(guess for _ in means), None])
    return TableData(
        title,
        [Column(""), *(Column(name, 1) for name in names)],
        rows,
        f"{images}{classes:,} classes.{_bank_note(result)}",
        reference=tuple(at for at, row in enumerate(rows) if row[0] not in ("zero-shot", _BANK)),
    )


def _bank_note(result: Mapping[str, Any]) -> str:
    """The query bank of a result in a sentence, if it has numbers with one."""
    if not (beside := result.get("with_bank")):
        return ""
    bank = beside["bank"]
    seen = f"; {bank['seen']:,} of the images that are judged are in it" if bank["seen"] else ""
    return (
        f" Query bank: {bank['images']:,} known images and {bank['captions']:,} known captions"
        f"{seen}."
    )


def per_class_table(per_class: Mapping[str, float], limit: int = 20) -> TableData:
    """Accuracy by class in percent, the lowest first and at most ``limit`` of them."""
    ranked = sorted(per_class.items(), key=lambda item: item[1])
    note = f"The lowest {limit} of {len(ranked):,} classes." if len(ranked) > limit else ""
    columns = [Column("class"), Column("top-1 (%)", 1)]
    return TableData("Accuracy by class", columns, ranked[:limit], note)


def hits_table(hits: Sequence[Mapping[str, Any]], title: str = "") -> TableData:
    """Search results, best first: ``[{"id": …, "path": …, "score": …}]``; a score is a cosine. With
    a query bank each hit also has ``adjusted``, by which they are ordered, and of a calibrated
    model the ``probability`` that it shows what was asked, 0 to 1."""
    known = [key for key in ("adjusted", "score") if hits and all(key in hit for hit in hits)]
    likely = [hit.get("probability") for hit in hits]
    shows = bool(hits) and None not in likely
    rows = [
        (
            rank, *([100 * (hit["probability"])] if shows else []),
            *(hit[key] for key in (*known, "id", "path")),
        )
        for rank, hit in enumerate(hits, start=1)
    ]  # fmt: skip
    numbers = [Column("shows it (%)", 1)] if shows else []
    numbers += [Column(key, 3) for key in known]
    columns = [Column("rank", 0), *numbers, Column("id"), Column("path")]
    return TableData(title, columns, rows, "" if rows else "No hits.")


def duplicates_table(
    groups: Sequence[Mapping[str, Any]], among: int, near: float, limit: int
) -> TableData:
    """Groups of photographs that are nearly the same, as ``lateen duplicates`` has them."""
    rows = [
        (
            number, photo["score"], f"{photo['width']} × {photo['height']}",
            "yes" if photo["id"] in group["identical"] else "", photo["id"],
        )
        for number, group in enumerate(groups[:limit], start=1)
        for photo in group["photographs"]
    ]  # fmt: skip
    count = sum(len(group["photographs"]) for group in groups)
    shown = f"The first {limit} groups. " if len(groups) > limit else ""
    columns = [Column("group", 0), Column("cosine", 4), Column("pixels"), Column("same bytes"),
               Column("id")]  # fmt: skip
    return TableData(
        "Nearly the same", columns, rows,
        f"{shown}{len(groups):,} groups of {count:,} among {among:,} photographs, by a cosine of "
        f"{near:g} or more with another one of the group.",
    )  # fmt: skip


def near_table(
    pairs: Sequence[Mapping[str, Any]], count: int, above: float, where: str, limit: int = 40
) -> TableData:
    """Samples that are nearly the same: ``[{"id": …, "other": …, "cosine": …}]``, nearest first."""
    rows = [(pair["cosine"], pair["id"], pair["other"]) for pair in pairs[:limit]]
    shown = f"The first {limit} of them. " if len(pairs) > limit else ""
    return TableData(
        "Nearly the same",
        [Column("cosine", 4), Column("id"), Column(f"in {where}")],
        rows,
        f"{shown}{len(pairs):,} of {count:,} samples have one with a cosine of {above} or more.",
    )


def inspect_table(facts: Mapping[str, Any], title: str = "") -> TableData:
    """Names and values, one pair a line, without a heading row; see :func:`fact`."""
    rows = [(name, fact(value)) for name, value in facts.items()]
    return TableData(title, [Column(""), Column("")], rows)


def _markdown(text: str) -> str:
    return re.sub(r"([\\|`*<>\[\]])", r"\\\1", text)


def _latex_cell(text: str) -> str:
    if STAR not in text:
        return _latex_number(text)
    bare = " ".join(text.replace(STAR, " ").split())
    number = re.match(r"[-+−]?[\d.,]+(?= [\[(±])", bare)  # with an interval or deviation behind it
    end = number.end() if number else len(bare)
    return f"\\textbf{{{_latex_number(bare[:end])}}}{_latex_number(bare[end:], ' ')}"


def _latex_number(text: str, before: str = "") -> str:
    """Escaped; a hyphen before a digit is a minus sign."""
    escaped = escape_latex(re.sub(r"(?<![\w.-])-(?=[\d.])", "−", text))
    return before + escaped if escaped else ""


def _latex_row(cells: Iterable[str]) -> str:
    first, *others = cells
    # Behind a line's end, a bracket or an asterisk would belong to it.
    first = f"{{}}{first}" if first[:1] in ("[", "*") else first
    return f"    {' & '.join([first, *others])} \\\\"
