"""Plots of a training run and of accuracy by class, as matplotlib figures, SVG text or PNG."""

from __future__ import annotations

import contextlib
import io
import math
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateen.errors import UsageError, choices
from lateen.files import atomic_path, write_text
from lateen.report.palette import BLUE, GREEN, INK, LINE, MUTED, ORANGE, PAPER, PURPLE
from lateen.report.text import plain
from lateen.report.typeset import families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_DIRECTIONS = {
    "text_to_image": ("text → image", BLUE),
    "image_to_text": ("image → text", ORANGE),
}
# Colour, marker, filled: told apart without colour, too.
MARKS = [
    (BLUE, "o", True), (ORANGE, "s", True), (GREEN, "D", True), (PURPLE, "^", True),
    (INK, "v", True), (BLUE, "P", False), (ORANGE, "d", False), (GREEN, "s", False),
    (PURPLE, "v", False), (INK, "D", False),
]  # fmt: skip
_Panel = tuple[Callable[..., None], Mapping[str, Any], str]  # draws, what, its title
_MOST_POINTS = 400  # of a curve: what the eye can tell apart at this size
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "lateen",
    "pdf.fonttype": 42,  # TrueType: what journals take
    "text.parse_math": False,
    "text.color": INK,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.axisbelow": True,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


def training_curve(metrics: Sequence[Mapping[str, Any]]) -> Figure:
    """Training loss (left) and validation R@10 both ways (right) over the optimiser steps.

    The loss axis is logarithmic where the loss falls by more than a factor of five. A panel
    without rows is left out.

    Args:
        metrics: rows of ``metrics.jsonl``: ``{"step", "loss", …}`` and ``{"step", "validation":
            {"text_to_image": {"R@10": percent, …}, "image_to_text": {…}}}``.

    Raises:
        UsageError: there is neither a loss nor a validation.
    """
    losses = [(row["step"], row["loss"]) for row in metrics if row.get("loss") is not None]
    validations = [(row["step"], row["validation"]) for row in metrics if row.get("validation")]
    drawings: list[tuple[Callable[..., None], Sequence[Any]]] = [
        (_loss_panel, losses),
        (_recall_panel, validations),
    ]
    panels = [(draw, rows) for draw, rows in drawings if rows]
    if not panels:
        raise UsageError("there is nothing to plot", "Give the rows of a run's metrics.jsonl.")
    with quiet_style():
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        layout = ConstrainedLayoutEngine(wspace=0.06)
        figure = Figure(figsize=(4.6 * len(panels), 3.1), layout=layout)
        axes = figure.subplots(1, len(panels), squeeze=False, sharex=True)[0]
        for (draw, rows), panel in zip(panels, axes, strict=True):
            draw(panel, rows)
            panel.set_xlabel("optimiser step")
            panel.margins(x=0.02)
            panel.grid(axis="y")
            panel.tick_params(length=0)
        return laid_out(figure)


def bar_chart(
    values: Mapping[str, float],
    *,
    label: str = "top-1 accuracy (%)",
    chance: float | None = None,
    limit: int = 40,
) -> Figure:
    """One horizontal bar for each class, the highest on top, with its value at its end.

    Args:
        values: percent by class name.
        label: what the values are, with their unit.
        chance: the level of guessing in percent, drawn as a line.
        limit: with more classes, the highest and the lowest halves of this many are shown.

    Raises:
        UsageError: there are no values.
    """
    if not values:
        raise UsageError("there is nothing to plot", "Give at least one class with its value.")
    bars = _ends(sorted(values.items(), key=lambda item: -item[1]), limit)
    with quiet_style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.4, 0.55 + 0.27 * len(bars)), layout="constrained")
        axes = figure.subplots()
        places = [place for place, (_, value) in enumerate(bars) if value is not None]
        lengths = [value for _, value in bars if value is not None]
        drawn = axes.barh(places, lengths, height=0.66, color=BLUE)
        numbers = [f"{value:.1f}" for value in lengths]
        written = axes.bar_label(drawn, numbers, padding=4, color=INK)
        names = [shortened(name) for name, _ in bars]
        axes.set_yticks(range(len(bars)), names, family=["DejaVu Sans", *families(names)])
        axes.set_ylim(len(bars) - 0.5, -0.5)
        axes.set_xlim(0, 108)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel(label)
        axes.tick_params(length=0)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.spines["bottom"].set_visible(False)
        if chance is not None:
            axes.axvline(chance, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 3)))
            for number in written:  # over the line
                number.set_bbox({"facecolor": PAPER, "edgecolor": "none", "pad": 0.8})
            name = f"chance {chance:.1f}"
            axes.text(chance, -0.6, name, color=ORANGE, ha="left", va="bottom", size=9)
        return laid_out(figure)


def ladder_plot(
    measured: Mapping[str, Mapping[str, Sequence[float]]],
    published: Mapping[str, Mapping[str, float]] | None = None,
) -> Figure:
    """R@1 of an ablation's rungs from top to bottom: each seed, mean and standard deviation.

    Published numbers are of other data and have a panel of their own: compare the shapes.

    Args:
        measured: percent of every seed, by rung and direction (as ``text_to_image``).
        published: percent by rung and direction, where a paper has them.

    Raises:
        UsageError: there are no rungs.
    """
    return _draw_ladder(list(measured), _ladder_panels(measured, published))


def ladder_figures(
    measured: Mapping[str, Mapping[str, Sequence[float]]],
    published: Mapping[str, Mapping[str, float]] | None = None,
) -> list[Figure]:
    """The panels of :func:`ladder_plot`, a figure each."""
    panels = _ladder_panels(measured, published)
    return [_draw_ladder(list(measured), [panel]) for panel in panels]


def _ladder_panels(
    measured: Mapping[str, Mapping[str, Sequence[float]]],
    published: Mapping[str, Mapping[str, float]] | None,
) -> list[_Panel]:
    if not measured:
        raise UsageError("there is nothing to plot", "Give at least one rung with its values.")
    panels: list[_Panel] = [(_measured_panel, measured, "measured here")]
    if any((published or {}).values()):
        panels.append((_published_panel, published or {}, "published, on other data"))
    return panels


def _draw_ladder(rungs: Sequence[str], panels: Sequence[_Panel]) -> Figure:
    with quiet_style():
        from matplotlib.figure import Figure

        size = (2.0 + 3.4 * len(panels), 1.0 + 0.42 * len(rungs))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for (draw, values, title), panel in zip(panels, axes, strict=True):
            for place, name in enumerate(rungs):
                draw(panel, place, values.get(name, {}))
            panel.set_title(title)
            panel.set_xlabel("R@1 (%)")
            panel.grid(axis="both")
            panel.tick_params(length=0)
        names = [shortened(name) for name in rungs]
        axes[0].set_yticks(range(len(names)), names, family=["DejaVu Sans", *families(names)])
        axes[0].set_ylim(len(names) - 0.5, -0.5)
        axes[0].tick_params(axis="y", labelcolor=INK)
        handles = axes[0].get_legend_handles_labels()
        figure.legend(*handles, frameon=False, loc="outside upper right", ncols=2,
                      labelcolor="linecolor")  # fmt: skip
        return laid_out(figure)


def svg(figure: Figure) -> str:
    """``figure`` as SVG with its text as text and no background; the same figure, the same text."""
    buffer = io.StringIO()
    with quiet_style():
        figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    return buffer.getvalue()


def save_plot(figure: Figure, path: Path) -> None:
    """Write ``figure`` as ``.svg``, ``.pdf`` or ``.png`` (200 pixels an inch), whole or not at all.

    Raises:
        UsageError: the name ends in something else.
    """
    if path.suffix == ".svg":
        write_text(path, svg(figure))
    elif path.suffix == ".png":
        with quiet_style(), atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=200, facecolor=PAPER)
    elif path.suffix == ".pdf":
        with quiet_style(), atomic_path(path) as temporary:
            nothing = dict.fromkeys(("CreationDate", "Creator", "Producer"))
            figure.savefig(temporary, format="pdf", transparent=True, metadata=nothing)
    else:
        raise UsageError(
            f"a plot cannot be written as {path.name!r}",
            choices(path.suffix, (".svg", ".pdf", ".png")),
        )


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write figures for a paper into ``folder``: each as SVG and as PDF, without a background.

    Args:
        figures: by the name of their files; a suffix ``.png`` of it does not count.
        folder: is made if it is not there.

    Returns:
        The files.
    """
    paths = []
    for name, figure in figures.items():
        for suffix in (".svg", ".pdf"):
            paths.append(folder / (name.removesuffix(".png") + suffix))
            save_plot(figure, paths[-1])
    return paths


@contextlib.contextmanager
def quiet_style() -> Iterator[None]:
    """The style of all plots; matplotlib looks up fonts both when it makes and when it draws."""
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # SVG holds the characters themselves, and the viewer's fonts show them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def laid_out(figure: Figure) -> Figure:
    """``figure`` with everything in its final place."""
    # The layout engine moves things a little at every drawing; once is enough, and repeatable.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def _loss_panel(axes: Axes, losses: Sequence[tuple[float, float]]) -> None:
    steps, values = thinned(losses)
    axes.plot(steps, values, color=INK, linewidth=1.2)
    finite = [value for value in values if math.isfinite(value)]
    if finite and min(finite) > 0 and max(finite) > 5 * min(finite):
        set_log_scale(axes)
    axes.set_title("training")
    axes.set_ylabel("loss, log scale" if axes.get_yscale() == "log" else "loss")


def _recall_panel(axes: Axes, validations: Sequence[tuple[float, Mapping[str, Any]]]) -> None:
    steps = [step for step, _ in validations]
    for direction, (name, colour) in _DIRECTIONS.items():
        recall = [result[direction]["R@10"] for _, result in validations]
        axes.plot(steps, recall, color=colour, marker="o", markersize=3.5, label=name)
    axes.set_title("validation")
    axes.set_ylabel("R@10 (%)")
    axes.legend(frameon=False, loc="lower right", labelcolor="linecolor")


def _measured_panel(axes: Axes, place: int, values: Mapping[str, Sequence[float]]) -> None:
    for (direction, (name, colour)), shift in zip(_DIRECTIONS.items(), (-0.13, 0.13), strict=True):
        seeds = values[direction]
        y = place + shift
        if len(seeds) > 1:
            spread = statistics.stdev(seeds)
            axes.errorbar(statistics.mean(seeds), y, xerr=spread, color=colour, capsize=3)
        axes.plot(seeds, [y] * len(seeds), "o", color=colour, markersize=3, alpha=0.45)
        mean = axes.plot(statistics.mean(seeds), y, "o", color=colour, markersize=6)
        mean[0].set_label(name if place == 0 else "_")


def _published_panel(axes: Axes, place: int, values: Mapping[str, float]) -> None:
    for (direction, (name, colour)), shift in zip(_DIRECTIONS.items(), (-0.13, 0.13), strict=True):
        if direction in values:
            named = name in axes.get_legend_handles_labels()[1]  # of a rung above
            axes.plot(
                values[direction], place + shift, "D", color=colour, markersize=5, mfc="none",
                label="_" if named else name,
            )  # fmt: skip


def set_log_scale(axes: Axes) -> None:
    """A logarithmic axis with plain numbers beside it, as the style sets no formulas."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axes.dataLim.intervaly
    few = low > 0 and high < 100 * low
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def thinned(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """At most ``_MOST_POINTS`` points, each the mean of as many neighbours."""
    size = math.ceil(len(points) / _MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    steps = [math.fsum(step for step, _ in group) / len(group) for group in groups]
    values = [math.fsum(value for _, value in group) / len(group) for group in groups]
    return steps, values


def _ends(ranked: Sequence[tuple[str, float]], limit: int) -> list[tuple[str, float | None]]:
    if len(ranked) <= limit:
        return list(ranked)
    half = limit // 2
    hidden = len(ranked) - 2 * half
    return [*ranked[:half], (f"… {hidden:,} more …", None), *ranked[-half:]]


def shortened(name: str, length: int = 32) -> str:
    """``name`` on one line, ``…`` in its middle where it has more than ``length`` characters: the
    end often is what tells names apart."""
    name, tail = plain(name), length // 3
    return name if len(name) <= length else f"{name[: length - 1 - tail]}…{name[-tail:]}"
