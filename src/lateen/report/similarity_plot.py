"""How alike the images of pairs are: distributions of cosines, one below the other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lateen.errors import UsageError
from lateen.report.palette import BLUE, MUTED, ORANGE
from lateen.report.plots import laid_out, quiet_style, shortened
from lateen.report.typeset import families

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_BINS = 36


def similarity_plot(
    cosines: Mapping[str, Sequence[float]], *, label: str = "image–image cosine within a pair"
) -> Figure:
    """A histogram per model over one axis, with median and quartiles (as SAIL's figure 5).

    Args:
        cosines: of the pairs, by model.
        label: what they are.

    Raises:
        UsageError: there is no model, or one without pairs.
    """
    if not cosines or not all(cosines.values()):
        raise UsageError("there is nothing to plot", "Give at least one cosine per model.")
    lowest = min(map(min, cosines.values()))
    low = min(math.floor(20 * lowest) / 20, 0.95)
    with quiet_style():
        from matplotlib.figure import Figure

        size = (7.2, 0.7 + 1.5 * len(cosines))
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(len(cosines), 1, squeeze=False, sharex=True, sharey=True)[:, 0]
        edges = np.linspace(low, 1, _BINS + 1)
        for panel, (name, values) in zip(panels, cosines.items(), strict=True):
            _panel(panel, name, np.asarray(values), edges)
        panels[-1].set_xlabel(label)
        panels[0].set_xlim(low, 1)
        panels[0].margins(y=0.12)
        figure.supylabel("pairs (%)", size=10, color=MUTED)
        return laid_out(figure)


def _panel(axes: Axes, name: str, values: np.ndarray, edges: np.ndarray) -> None:
    share = np.full(len(values), 100 / len(values))
    # A cosine of 1 may come out a little above.
    axes.hist(
        np.clip(values, edges[0], edges[-1]), edges.tolist(), weights=share, color=BLUE, alpha=0.85
    )
    quarter, median, three_quarters = np.quantile(values, (0.25, 0.5, 0.75))
    axes.axvspan(quarter, three_quarters, color=ORANGE, alpha=0.14, linewidth=0, zorder=0)
    axes.axvline(median, color=ORANGE, linewidth=1.6)
    axes.set_title(shortened(name, 80), pad=19, family=["DejaVu Sans", *families([name])])
    numbers = (
        f"median {median:.2f}, quartiles {quarter:.2f} to {three_quarters:.2f}, "
        f"{len(values):,} pairs"
    )
    axes.annotate(
        numbers.replace("-", "−"), (0, 1), (0, 5), "axes fraction", "offset points", size=9,
        color=MUTED,
    )  # fmt: skip
    axes.grid(axis="y")
    axes.tick_params(length=0)
