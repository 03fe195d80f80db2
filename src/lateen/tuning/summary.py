"""What a tuning gained and what it cost, in a sentence and in tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lateen.model.card import CardResult
from lateen.report.tables import INTERVAL, Cell, Column, TableData, signed
from lateen.tuning.checks import Stop

Measures = Mapping[str, Mapping[str, Any]]
"""Numbers by name, as a check has them."""

# What a card shows: of which task it is, and of which data.
_ON_CARDS = {
    **{f"{way}.R@{k}": ("retrieval", "captions")
       for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)},
    "zero_shot": ("classification", "classes"), "knn_embedding": ("knn", "classes"),
    "linear_probe_embedding": ("linear-probe", "classes"),
}  # fmt: skip
JUDGED = tuple(Stop.model_fields)
"""The measures that gain or lose; the others are parts of them, or are neither better nor worse."""


def verdict(
    before: Measures, after: Measures, *, kept_step: int, steps: int,
    stopped: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    """One sentence: what was gained, what was lost, and where it ended.

    A measure gains or loses where the paired interval of its difference is on one side of 0, on six
    images or more; else there is nothing measurable.

    Args:
        before: of the start.
        after: of the kept step, with the differences from the start.
        kept_step: whose model is kept; 0 is the start.
        steps: planned.
        stopped: the ``step`` at which a limit was broken, if one was.
    """
    end = _end(kept_step, steps, stopped)
    if not kept_step:
        return f"keeps the model as it was: {end}"
    judged = {name: after[name] for name in JUDGED if name in after}
    if not judged:
        return f"gains and losses were not measured; {end}"
    significant = [one for one in judged.values() if one["difference"]["told"]]
    gains = [one for one in significant if one["difference"]["value"] > 0]
    losses = [one for one in significant if one["difference"]["value"] < 0]
    unchanged = [_short(one) for one in judged.values() if one["difference"]["told"] is False]
    unpaired = [_short(one) for one in judged.values() if one["difference"]["told"] is None]
    unpaired += [_short(before[name]) for name in JUDGED if name in before and name not in after]
    parts = [_body(gains, losses, unchanged)]
    if unpaired:
        parts.append(f"cannot be compared in {_listed(unpaired)}")
    return f"{', '.join(filter(None, parts))}; {end}"


def _body(
    gains: Sequence[Mapping[str, Any]], losses: Sequence[Mapping[str, Any]],
    unchanged: Sequence[str],
) -> str:  # fmt: skip
    """What was gained and what was lost; those in which neither is measurable are named once."""
    where = f" in {_listed(unchanged)}" if unchanged else ""
    if not gains and not losses:
        return f"gains and loses nothing measurable{where}" if unchanged else ""
    if gains and losses:
        more = f", nothing measurable changes{where}" if unchanged else ""
        return f"gains {_points(gains, 1)}, loses {_points(losses)}{more}"
    if gains:
        return f"gains {_points(gains, 1)}, loses nothing measurable{where}"
    return f"gains nothing measurable{where}, loses {_points(losses)}"


def _points(measures: Sequence[Mapping[str, Any]], sure: int | None = None) -> str:
    """``3.1 points of 10-NN (encoder; 95 % interval 1.9 to 4.4, 800 images)``, the largest first.

    What was lost is written without its sign, as the words around it say that it was.

    Args:
        measures: all gains, or all losses.
        sure: how many of them have their interval; all if not given.
    """
    ranked = sorted(measures, key=lambda one: -abs(one["difference"]["value"]))
    texts = []
    for at, one in enumerate(ranked):
        value = abs(one["difference"]["value"])
        name, _, kind = str(one["label"]).partition(", ")
        inside = [kind] if kind else []
        if sure is None or at < sure:
            low, high = sorted(abs(end) for end in one["difference"]["interval"])
            counted = f"{one['n']:,} {one['of']}"
            inside.append(f"{INTERVAL} {low:.1f} to {high:.1f}, {counted}")
        brackets = f" ({'; '.join(inside)})" if inside else ""
        texts.append(f"{value:.1f}{'' if at else ' points'} of {name}{brackets}")
    return _listed(texts)


def _short(measure: Mapping[str, Any]) -> str:
    name, _, kind = str(measure["label"]).partition(", ")
    return f"{name} ({kind})" if kind else name


def _listed(items: Sequence[str]) -> str:
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last


def _end(kept_step: int, steps: int, stopped: Mapping[str, Any] | None) -> str:
    if stopped is None:
        whole = kept_step == steps
        return f"all {steps:,} steps done" if whole else f"step {kept_step:,} of {steps:,} kept"
    at = f"stopped at step {stopped['step']:,} of {steps:,}"
    return f"{at}, step {kept_step:,} kept" if kept_step else f"{at}, as no checkpoint held"


def sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}." if text else ""


def has_limits(stop: Mapping[str, Any] | None) -> bool:
    """Whether the settings ``stop`` of a tuning limit anything: its images then chose the step."""
    return any(limit is not None for limit in (stop or {}).values())


def card_results(results: Mapping[str, Any]) -> list[CardResult]:
    """What the card of a tuned model shows: the kept checkpoint's numbers, and whether the images
    that they are of also decided where to stop.

    Args:
        results: the content of ``results.json``.
    """
    chose = has_limits(results["settings"]["stop"])
    sources, after = results["measured_on"], results["after"]
    return [
        CardResult(
            task, sources[of], measure["label"], measure["value"],
            tuple(measure["interval"]) if measure["interval"] else None, measure["n"],
            measure["chance"], chose=chose,
        )
        for name, (task, of) in _ON_CARDS.items() if of in sources and (measure := after.get(name))
    ]  # fmt: skip


def tune_tables(results: Mapping[str, Any]) -> Iterator[TableData]:
    """Before, after and their difference; how far embeddings moved, and what texts noticed of it.

    Args:
        results: the content of ``results.json``.
    """
    before, after = results["before"], results["after"]
    parts = [name for name in before if ".R@" in name]
    whole = [name for name in before if name not in parts]
    if whole:
        yield _before_after("Before and after", before, after, whole, _NOTE)
    if parts:
        yield _before_after("Retrieval, each way", before, after, parts, "Percent.")
    if results.get("drift"):
        yield from _drift_tables(results["drift"])


_NOTE = (
    "Percent; a cosine is a cosine. The interval of a difference is paired, over images drawn "
    "anew: it is a gain or a loss where 0 is outside, on six images or more. One seed of training."
)


def _before_after(
    title: str, before: Measures, after: Measures, names: Sequence[str], note: str
) -> TableData:
    columns = [
        Column(""), Column("difference", 1), Column("finding"), Column("before", 1),
        Column("after", 1), Column("n", 0), Column("chance", 1),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    reference = []
    for name in names:
        first, last = before[name], after.get(name)
        show = _cosine if "cosine" in name else _percent
        difference = last["difference"] if last is not None else {}
        rows.append(
            [first["label"], show(difference["value"], True) if last else None,
             _finding(name, difference), show(first["value"]),
             show(last["value"]) if last else None, first["n"], first["chance"]]
        )  # fmt: skip
        intervals = [
            _range(one.get("interval") if one else None, show) for one in (first, last)
        ]  # fmt: skip
        between = _range(difference.get("interval"), show, True)
        if any([*intervals, between]):
            reference.append(len(rows))
            rows.append([INTERVAL, between, "", *intervals, "", ""])
    return TableData(title, columns, rows, note, reference=reference)


def _finding(name: str, difference: Mapping[str, Any]) -> str:
    """What a difference says: a gain, a loss, a change of what is neither, or nothing."""
    told = difference.get("told")
    if not told:
        return "not comparable" if told is None else "nothing measurable"
    if "cosine" in name:
        return "changed"
    return "gain" if difference["value"] > 0 else "loss"


def _percent(value: float, difference: bool = False) -> str:
    return signed(value) if difference else f"{value:.1f}"


def _cosine(value: float, difference: bool = False) -> str:
    return f"{value:+.3f}".replace("-", "−") if difference else f"{value:.3f}"


def _range(interval: Sequence[float] | None, show: Any, difference: bool = False) -> str:
    if interval is None:
        return ""
    low, high = (show(end, difference) for end in interval)
    return f"{low} to {high}" if difference else f"{low}–{high}"


def _drift_tables(drift: Mapping[str, Any]) -> Iterator[TableData]:
    """How far the embeddings moved, and how far that moved or could move a text's cosine."""
    cosine, norm = drift["cosine"], drift["norm"]
    lost = f" {drift['lost']:,} images have none any more." if drift.get("lost") else ""
    yield TableData(
        "Each image's embedding against its start",
        [Column(""), Column("mean", 4), Column("lowest", 4), Column("1 %", 4), Column("5 %", 4),
         Column("median", 4), Column("highest", 4)],
        [
            ["cosine", cosine["mean"], cosine["min"], cosine["q01"], cosine["q05"], cosine["q50"],
             None],
            ["change of length", norm["mean"], norm["min"], None, None, None, norm["max"]],
        ],
        f"{drift['images']:,} images; 1 % and 5 % of them have a lower cosine than these.{lost}",
    )  # fmt: skip
    rows: list[list[Cell]] = [
        ["bound, for any text", drift["bound"]["mean"], drift["bound"]["max"]]
    ]
    note = "The bound is 2‖f − f₀‖ / max(‖f‖, ‖f₀‖) for each image."
    if drift.get("texts"):
        change, tightness = drift["change"], drift["tightness"]
        rows.append(["largest change measured", change["mean"], change["max"]])
        if tightness:
            rows.append(["measured / bound", tightness["mean"], tightness["max"]])
        note += f" Measured on {drift['texts']:,} evaluation texts."
        if drift["violations"]:
            note += (
                f" {drift['violations']:,} images are above the bound, which is a mistake in "
                "lateen: please report it."
            )
    else:
        note += " No evaluation texts were given to hold against it."
    yield TableData(
        "How much the cosine with a text can change", [Column(""), Column("mean", 4),
        Column("highest", 4)], rows, note,
    )  # fmt: skip
