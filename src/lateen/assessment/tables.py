"""An assessment's numbers for the terminal, the page and spreadsheets, and what they say.

``results`` is the content of ``assessment.json`` throughout.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from lateen.assessment.chance import (
    calibrated_keys,
    chance_notes,
    chance_sentence,
    networks_table,
    similarity_cell,
)
from lateen.assessment.correlations import (
    FEWEST,
    OVER,
    correlation_text,
    count_networks,
    has_interval,
    left_out,
    missing_reason,
    sail_gap,
    with_interval,
)
from lateen.assessment.leaderboard import Results, Row, baseline_labels, interval_level, tied_rows
from lateen.assessment.measure import (
    MEASURES,
    Measure,
    PairMeasure,
    TextMeasure,
    VisionMeasure,
    higher_is_better,
    measure_name,
    measures,
)
from lateen.report import Column, TableData
from lateen.report.tables import rounded
from lateen.report.text import plain

_PUBLISHED = (0.991, 0.847)  # SAIL's r of kNN and of the linear probe with probing, no intervals
_BEST, _TIED = "●", "○"
NARROW = 100  # characters: in fewer, the cheap metrics leave no room for the encoders' names
_WIDE = 150  # from here on there is room for all of them
_COEFFICIENTS = ("pearson", "spearman")


def assessment_tables(
    results: Results, limit: int | None = None, width: int | None = None
) -> list[TableData]:
    """The leaderboard, of at most ``limit`` rows, and, if there are any, the most similar layers
    of every two networks and the correlations."""
    tables = [
        leaderboard_table(results, limit, width),
        networks_table(results, width),
        correlations_table(results),
    ]
    return [table for table in tables if table.rows]


def leaderboard_table(
    results: Results, limit: int | None = None, width: int | None = None
) -> TableData:
    """Every pair, the best first; those that cannot be told from the best are marked.

    A column without numbers (no labelled images, for instance) is left out.

    Args:
        results: the content of ``assessment.json``.
        limit: shows only so many rows; the note says how many more there are.
        width: in characters, if it is limited; in fewer than 150 only the metrics that have a
            plot are shown, in fewer than 100 none.
    """
    rows = results["rows"]
    baselines = baseline_labels(results)
    everything = _leaderboard_columns(results)
    seeds = any("sd" in row["probe"] for row in rows)  # then numbers are twice as wide
    columns = [
        (key, column)
        for key, column in everything
        if _has_room(key, width) and not (seeds and key == "R@1" and (width or _WIDE) < _WIDE)
    ]
    shown = rows[:limit]
    hidden = len(rows) - len(shown)
    more = [f"… {hidden:,} more in leaderboard.csv."] if hidden else []
    if len(columns) < len(everything):
        more.append("All metrics are in leaderboard.csv.")
    score = width is None  # a terminal has no room for a number beside each
    similarities = calibrated_keys()
    shows = any(key in similarities for key, _ in columns)
    chance = chance_notes(results, score=score) if shows else []

    def cell(row: Row, key: str) -> Any:
        if key in similarities and chance:
            return similarity_cell(results, row, key, score=score)
        return _leaderboard_cell(row, key, baselines)

    return TableData(
        "Leaderboard",
        [column for _, column in columns],
        [[cell(row, key) for key, _ in columns] for row in shown],
        " ".join([*more, *_leaderboard_notes(results), *chance]),
    )


def _has_room(key: str, width: int | None) -> bool:
    """Whether a column is shown in so many characters."""
    if width is None or width >= _WIDE or (key not in MEASURES and key != "R@5"):
        return True
    return width >= NARROW and key in MEASURES and MEASURES[key].scatter is not None


def correlations_table(results: Results) -> TableData:
    """How well each cheap metric predicts alignment probing, or why that cannot be said.

    What there are too few encoders for is not in it: see :func:`few_encoders`.
    """
    rows: list[list[Any]] = []
    few = left_out(results)
    for one in (c for c in results["correlations"] if c["over"] not in few):
        names = [measure_name(one[side]) for side in ("x", "y")]
        name = names[0] if one["y"] == "probe" else " and ".join(names)
        both = [with_interval(one[way], one[f"{way}_interval"]) for way in _COEFFICIENTS]
        rows.append([name, OVER.get(one["over"], one["over"]), one["n"], *both, one["reason"]])
    notes = [f"In brackets: {interval_level(results)} intervals." if rows else "None was taken."]
    notes += ["Baselines are not counted."] if baseline_labels(results) else []
    columns = [Column("metric"), Column("over"), Column("n", 0)]
    columns += [Column(name, 2, whole=True) for name in ("Pearson", "Spearman")]
    if any(row[-1] for row in rows):
        columns.append(Column("no correlation because"))
    return TableData(
        "Correlation with alignment probing (mean R@10)",
        columns,
        [row[: len(columns)] for row in rows],
        " ".join(notes),
    )


def few_encoders(results: Results) -> str:
    """Which correlations are left out because there are too few encoders; empty if none is."""
    few = [OVER[over] for over in left_out(results)]
    if not few:
        return ""
    sides = [results[side] for side in ("vision", "text")]
    encoders = [sum(not one["baseline"] for one in side) for side in sides]
    networks = [count_networks(side) for side in sides]
    said = f"What predicts probing is not said over {_listed(few)}: a correlation needs {FEWEST}"
    if networks == encoders:
        vision, text = encoders
        return f"{said} encoders, and there are {vision} vision and {text} text encoders."
    vision, text = networks
    return (
        f"{said} networks, for layers and poolings of one are not independent, and there are "
        f"{vision} of vision and {text} of text."
    )


def encoder_tables(results: Results) -> list[TableData]:
    """Every vision and every text candidate with what was measured of it alone."""
    vision, text = results["vision"], results["text"]
    note = "Mean R@10: over all pairs with it."
    return [
        _encoder_table("Vision", vision, map(_encoder_name, vision), _vision_accuracies, note),
        _encoder_table("Text", text, (one["label"] for one in text), _text_values),
    ]


def _encoder_table(
    title: str,
    encoders: Sequence[Mapping[str, Any]],
    names: Iterable[str],
    values: Callable[[Mapping[str, Any]], dict[str, float]],
    note: str = "",
) -> TableData:
    """The encoders of one side; a column of values that all lack is not there."""
    measured = [values(encoder) for encoder in encoders]
    headings = list(dict.fromkeys(heading for each in measured for heading in each))
    columns = [Column(title.lower()), Column("pooling"), Column("dim", 0)]
    columns += [Column(heading, 1) for heading in headings]
    rows = [
        [name, encoder["pooling"], encoder["dim"], *map(each.get, headings), encoder["mean_probe"]]
        for encoder, name, each in zip(encoders, names, measured, strict=True)
    ]
    return TableData(title, [*columns, Column("mean R@10 (%)", 1)], rows, note)


def _vision_accuracies(encoder: Mapping[str, Any]) -> dict[str, float]:
    """Those of a vision encoder, of fewer neighbours first, by heading."""
    accuracies = {}
    for measure in measures(VisionMeasure):
        by_k = measure.by_k(encoder.get(measure.key))
        for k in sorted(by_k, key=lambda k: k or 0):
            setting = "" if k is None else f", k = {k}"
            accuracies[f"{_one_line(measure)}{setting} (%)"] = by_k[k]
    return accuracies


def _text_values(encoder: Mapping[str, Any]) -> dict[str, float]:
    values = {_one_line(row): encoder.get(row.key) for row in measures(TextMeasure)}
    return {heading: value for heading, value in values.items() if value is not None}


def _one_line(measure: Measure) -> str:
    return (measure.heading or measure.name).replace("\n", " ")


def leaderboard_csv(results: Results) -> str:
    """Every number of every row, with six digits, as CSV: nested values as ``probe.R@10``."""
    rows = [_flattened(row) for row in results["rows"]]
    heads = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def findings(results: Results) -> list[str]:
    """What the numbers say, in sentences; every correlation comes with its interval and n."""
    sentences = [_best_pair(results), chance_sentence(results)]
    few = left_out(results)
    sentences += [_best_predictor(results, over) for over in OVER if over not in few]
    sentences += [few_encoders(results), "" if "vision" in few else _against_the_paper(results)]
    return [sentence for sentence in sentences if sentence]


def _leaderboard_columns(results: Results) -> list[tuple[str, Column]]:
    columns = [
        ("rank", Column("rank", 0, whole=True)),
        ("mark", Column("", whole=True)),
        ("vision", Column("vision")),
        ("text", Column("text")),
        ("R@10", Column("R@10", 1, whole=True)),
        ("interval", Column("interval", 1, whole=True)),
        ("R@1", Column("R@1", 1, whole=True)),
        ("R@5", Column("R@5", 1, whole=True)),
    ]
    columns += [
        (measure.key, Column(measure.heading, measure.decimals, whole=True))
        for measure in measures(PairMeasure, VisionMeasure)
        if measure.heading is not None and measure.shown_in(results)
    ]
    marked = any(row["ties_with_best"] for row in results["rows"])
    return [(key, column) for key, column in columns if marked or key != "mark"]


def _leaderboard_cell(row: Mapping[str, Any], key: str, baselines: set[str]) -> Any:
    probe = row["probe"]
    match key:
        case "mark":
            return _BEST if row["rank"] == 1 else _TIED if row["ties_with_best"] else ""
        case "vision" | "text":
            label = row[f"{key}_label"]
            return f"{label} (baseline)" if label in baselines else label
        case "R@1" | "R@5" | "R@10" if "sd" in probe:
            return f"{probe[key]:.1f} ± {probe['sd'][key]:.1f}"
        case "R@1" | "R@5" | "R@10":
            return probe[key]
        case "interval":
            return "–".join(f"{bound:.1f}" for bound in probe["interval"])
    return row.get(key)


def _leaderboard_notes(results: Results) -> list[str]:
    conditions, level = results["conditions"], interval_level(results)
    notes = [
        "R@K: alignment probing, mean of both directions in percent, over "
        f"{conditions['images']:,} images and {conditions['captions']:,} captions; "
        f"{level} interval."
    ]
    if seeds := conditions["probe"].get("seeds"):
        notes.append(
            f"Mean ± standard deviation over {len(seeds)} training seeds; the interval is that of "
            "the mean, over images."
        )
    if tied_rows(results):
        notes.insert(
            0,
            f"{_BEST} best; {_TIED} tied with it: the paired {level} interval of the "
            "difference includes 0.",
        )
    accuracies = measures(VisionMeasure)
    if any(measure.shown_in(results) for measure in accuracies):
        names = [_one_line(measure) for measure in accuracies if measure.heading is not None]
        notes.append(f"{_listed(names)}: accuracy of the vision encoder in percent.")
    return notes


def _encoder_name(encoder: Mapping[str, Any]) -> str:
    return f"{encoder['label']}{' (baseline)' if encoder['baseline'] else ''}"


def _flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flattened(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            ends = dict(zip(("low", "high"), value, strict=True))
            flat |= _flattened(ends, f"{prefix}{key}.")
        else:
            number = rounded(value) if isinstance(value, float) else value
            flat[prefix + key] = plain(value) if isinstance(value, str) else number
    return flat


def _best_pair(results: Results) -> str:
    best, others = results["rows"][0], len(results["rows"]) - 1
    low, high = best["probe"]["interval"]
    ties, level = len(tied_rows(results)), interval_level(results)
    first = (
        f"{plain(best['vision_label'])} with {plain(best['text_label'])} aligns best: mean R@10 "
        f"{best['probe']['R@10']:.1f} % ({level} interval {low:.1f} to {high:.1f})."
    )
    if not others:
        return first.replace("aligns best", "is the only pair")
    which = "the other pair" if others == 1 else f"the {others:,} other pairs"
    if not ties:
        return f"{first} It is clearly ahead of {which}."
    if others == 1:
        return f"{first} The other pair is statistically tied with it."
    return (
        f"{first} Of {which}, {ties:,} {'is' if ties == 1 else 'are'} statistically tied with it."
    )


def _best_predictor(results: Results, over: str) -> str:
    correlations = [c for c in results["correlations"] if (c["y"], c["over"]) == ("probe", over)]
    correlations = [c for c in correlations if c["n"]]
    if not correlations:
        return ""
    strongest = sorted(filter(has_interval, correlations), key=lambda c: -abs(c["pearson"]))
    if not strongest:
        reason = missing_reason(correlations[0])
        return f"Over {OVER[over]}, no metric can be said to predict probing: {reason}."
    top, *rest = strongest
    name = measure_name(top["x"])
    low, high = top["pearson_interval"]
    if low <= 0 <= high:
        return (
            f"Over {OVER[over]}, nothing clearly predicts probing: the strongest correlation, "
            f"that of {name}, is {correlation_text(top)}, and its interval includes 0."
        )
    inversely = " (inversely)" if (top["pearson"] > 0) != higher_is_better(top["x"]) else ""
    first = f"Over {OVER[over]}, {name} predicts probing{' best' if rest else ''}{inversely}: "
    close = [
        f"{measure_name(c['x'])} ({correlation_text(c)})"
        for c in rest
        if _intervals_overlap(top, c)
    ]
    if not close:
        return f"{first}{correlation_text(top)}."
    return (
        f"{first}{correlation_text(top)}. That order is unclear: its interval overlaps strongly "
        f"with {_first_few(close)}."
    )


def _against_the_paper(results: Results) -> str:
    """Whether kNN beats the linear probe as a predictor of probing (METHODS §1.5)."""
    there = "r = {} against {} there, without intervals".format(*_PUBLISHED)
    question = f"Does kNN predict probing better than a linear probe, as in the paper ({there})?"
    gap = sail_gap(results)
    if gap is None and not results["conditions"]["labelled_images"]:
        return f"{question} Not measured: that needs labelled images."
    if gap is None:
        return f"{question} Not measured: no vision encoder has both accuracies."
    unclear = f"That cannot be told from {gap['n']} point{'' if gap['n'] == 1 else 's'}"
    if gap["difference"] is None or gap["interval"] is None:
        return f"{question} {unclear}: {missing_reason(gap)}."
    low, high = gap["interval"]
    answer = "Yes" if low > 0 else "No" if high < 0 else unclear
    difference = with_interval(gap["difference"], gap["interval"], sign="+")
    return f"{question} {answer}: the difference of r is {difference}, n = {gap['n']}."


def _first_few(items: Sequence[str], most: int = 2) -> str:
    """``a, b and 3 others``."""
    more = len(items) - most
    named = list(items[:most])
    if more > 0:
        named.append(f"{more} other{'' if more == 1 else 's'}")
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))


def _listed(items: Sequence[str]) -> str:
    """``a, b and c``."""
    return _first_few(items, len(items))


def _intervals_overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the strength of either lies in the interval of the other."""
    strengths = [(abs(c["pearson"]), _strength_interval(c)) for c in (one, other)]
    (a, (a_low, a_high)), (b, (b_low, b_high)) = strengths
    return bool(b_low <= a <= b_high or a_low <= b <= a_high)


def _strength_interval(correlation: Mapping[str, Any]) -> tuple[float, float]:
    low, high = correlation["pearson_interval"]
    return (low, high) if correlation["pearson"] >= 0 else (-high, -low)
