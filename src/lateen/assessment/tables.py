"""An assessment's numbers for the terminal, the page and spreadsheets, and what they say.

``results`` is the content of ``assessment.json`` throughout.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from lateen.assessment.leaderboard import (
    METRICS,
    OF_VISION,
    OVER,
    PAIRWISE,
    Results,
    baselines,
    estimate,
    known,
    level,
    reason,
    tied,
    with_interval,
)
from lateen.report import Column, TableData
from lateen.report.text import plain

_PUBLISHED = (0.991, 0.847)  # SAIL's r of kNN and of the linear probe with probing, no intervals
_BEST, _TIED = "●", "○"
_NARROW = 100  # characters: in fewer, the cheap metrics leave no room for the encoders' names
_COEFFICIENTS = ("pearson", "spearman")


def assessment_tables(
    results: Results, limit: int | None = None, width: int = _NARROW
) -> list[TableData]:
    """The leaderboard, of at most ``limit`` rows, and the correlations, for so many characters."""
    return [leaderboard_table(results, limit, width), correlations_table(results)]


def leaderboard_table(
    results: Results, limit: int | None = None, width: int = _NARROW
) -> TableData:
    """Every pair, the best first; those that cannot be told from the best are marked.

    A column without numbers (no labelled images, for instance) is left out.

    Args:
        results: the content of ``assessment.json``.
        limit: shows only so many rows; the note says how many more there are.
        width: in characters; in fewer than 100 the cheap metrics are left out.
    """
    rows = results["rows"]
    aside = baselines(results)
    columns = _leaderboard_columns(rows)
    whole = len(columns)
    if width < _NARROW:
        columns = [c for c in columns if c[0] not in (*PAIRWISE, *OF_VISION)]
    shown = rows[:limit]
    hidden = len(rows) - len(shown)
    more = [f"… {hidden:,} more in leaderboard.csv."] if hidden else []
    if len(columns) < whole:
        more.append(f"Metrics beside probing: in leaderboard.csv, or in {_NARROW} characters.")
    return TableData(
        "Leaderboard",
        [column for _, column in columns],
        [[_cell(row, key, aside) for key, _ in columns] for row in shown],
        " ".join([*more, *_leaderboard_notes(results)]),
    )


def correlations_table(results: Results) -> TableData:
    """How well each cheap metric predicts alignment probing, or why that cannot be said."""
    rows: list[list[Any]] = []
    for one in results["correlations"]:
        names = [METRICS.get(one[side], one[side]) for side in ("x", "y")]
        name = names[0] if one["y"] == "probe" else " and ".join(names)
        both = [with_interval(one[way], one[f"{way}_interval"]) for way in _COEFFICIENTS]
        rows.append([name, OVER.get(one["over"], one["over"]), one["n"], *both, one["reason"]])
    notes = [f"In brackets: {level(results)} intervals." if rows else "None was taken."]
    notes += ["Baselines are not counted."] if baselines(results) else []
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


def encoder_tables(results: Results) -> list[TableData]:
    """Every vision and every text candidate with what was measured of it alone."""
    vision, text = results["vision"], results["text"]
    depths = sorted({k for one in vision for k in one["knn"] or {}}, key=int)
    accuracies = [[(one["knn"] or {}).get(k) for k in depths] for one in vision]
    probes = [(one["linear_probe"] or {}).get("accuracy") for one in vision]
    measured = any(value is not None for value in probes)
    columns = [Column(f"kNN, k = {k} (%)", 1) for k in depths]
    columns += [Column("linear probe (%)", 1)] if measured else []
    tail = Column("mean R@10 (%)", 1)
    head = [Column("vision"), Column("pooling"), Column("dim", 0)]
    rows = [
        [_named(one), one["pooling"], one["dim"], *knn, *([probe] if measured else []),
         one["mean_probe"]]
        for one, knn, probe in zip(vision, accuracies, probes, strict=True)
    ]  # fmt: skip
    score = [Column("given score", 1)] if any(one["score"] is not None for one in text) else []
    texts = [
        [one["label"], one["pooling"], one["dim"], *([one["score"]] if score else []),
         one["mean_probe"]]
        for one in text
    ]  # fmt: skip
    return [
        TableData("Vision", [*head, *columns, tail], rows,
                  "Mean R@10: over all pairs with it."),
        TableData("Text", [Column("text"), *head[1:], *score, tail], texts),
    ]  # fmt: skip


def leaderboard_csv(results: Results) -> str:
    """Every number of every row, as CSV with a heading: nested values as ``probe.R@10``."""
    rows = [_flat(row) for row in results["rows"]]
    heads = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def findings(results: Results) -> list[str]:
    """What the numbers say, in sentences; every correlation comes with its interval and n."""
    sentences = [_best_pair(results)]
    sentences += [_best_predictor(results, over) for over in OVER]
    return [sentence for sentence in [*sentences, _against_the_paper(results)] if sentence]


def _leaderboard_columns(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Column]]:
    def measured(key: str) -> bool:
        return any(row[key] is not None for row in rows)

    columns = [
        ("rank", Column("rank", 0, whole=True), True),
        ("mark", Column("", whole=True), any(row["ties_with_best"] for row in rows)),
        ("vision", Column("vision"), True),
        ("text", Column("text"), True),
        ("R@10", Column("R@10", 1, whole=True), True),
        ("interval", Column("interval", 1, whole=True), True),
        ("R@1", Column("R@1", 1, whole=True), True),
        ("cka", Column("CKA", 2, whole=True), measured("cka")),
        ("mutual_knn", Column("mutual\nkNN", 2, whole=True), measured("mutual_knn")),
        ("knn", Column("kNN", 1, whole=True), measured("knn")),
        ("linear_probe", Column("linear\nprobe", 1, whole=True), measured("linear_probe")),
    ]
    return [(key, column) for key, column, shown in columns if shown]


def _cell(row: Mapping[str, Any], key: str, aside: set[str]) -> Any:
    probe = row["probe"]
    match key:
        case "mark":
            return _BEST if row["rank"] == 1 else _TIED if row["ties_with_best"] else ""
        case "vision" | "text":
            label = row[f"{key}_label"]
            return f"{label} (baseline)" if label in aside else label
        case "R@1" | "R@10":
            return probe[key]
        case "interval":
            return "–".join(f"{bound:.1f}" for bound in probe["interval"])
    return row[key]


def _leaderboard_notes(results: Results) -> list[str]:
    held = results["conditions"]
    notes = [
        f"R@10 and R@1: alignment probing, mean of both directions in percent, over "
        f"{held['images']:,} images and {held['captions']:,} captions; {level(results)} interval."
    ]
    if tied(results):
        notes.insert(
            0,
            f"{_BEST} best; {_TIED} tied with it: the paired {level(results)} interval of the "
            "difference includes 0.",
        )
    if any(row["knn"] is not None or row["linear_probe"] is not None for row in results["rows"]):
        notes.append("kNN and linear probe: accuracy of the vision encoder in percent.")
    return notes


def _named(candidate: Mapping[str, Any]) -> str:
    return f"{candidate['label']}{' (baseline)' if candidate['baseline'] else ''}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            ends = dict(zip(("low", "high"), value, strict=True))
            flat |= _flat(ends, f"{prefix}{key}.")
        else:
            flat[prefix + key] = plain(value) if isinstance(value, str) else value
    return flat


def _best_pair(results: Results) -> str:
    best, others = results["rows"][0], len(results["rows"]) - 1
    low, high = best["probe"]["interval"]
    ties = len(tied(results))
    first = (
        f"{plain(best['vision_label'])} with {plain(best['text_label'])} aligns best: mean R@10 "
        f"{best['probe']['R@10']:.1f} % ({level(results)} interval {low:.1f} to {high:.1f})."
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
    mine = [c for c in results["correlations"] if (c["y"], c["over"]) == ("probe", over)]
    mine = [c for c in mine if c["n"]]
    if not mine:
        return ""
    ranked = sorted(filter(known, mine), key=lambda c: -abs(c["pearson"]))
    if not ranked:
        return f"Over {OVER[over]}, no metric can be said to predict probing: {reason(mine[0])}."
    top, *rest = ranked
    name = METRICS.get(top["x"], top["x"])
    low, high = top["pearson_interval"]
    if low <= 0 <= high:
        return (
            f"Over {OVER[over]}, nothing clearly predicts probing: the strongest correlation, "
            f"that of {name}, is {estimate(top)}, and its interval includes 0."
        )
    inversely = " (inversely)" if top["pearson"] < 0 else ""
    said = f"Over {OVER[over]}, {name} predicts probing{' best' if rest else ''}{inversely}: "
    close = [f"{METRICS.get(c['x'], c['x'])} ({estimate(c)})" for c in rest if _close(top, c)]
    if not close:
        return f"{said}{estimate(top)}."
    return (
        f"{said}{estimate(top)}. That order is unclear: its interval overlaps strongly with "
        f"{_listed(close)}."
    )


def _against_the_paper(results: Results) -> str:
    """Whether kNN beats the linear probe as a predictor of probing (METHODS §1.5)."""
    there = "r = {} against {} there, without intervals".format(*_PUBLISHED)
    question = f"Does kNN predict probing better than a linear probe, as in the paper ({there})?"
    gaps = [g for g in results["gaps"] if (g["better"], g["than"]) == ("knn", "linear_probe")]
    if not gaps and not results["conditions"]["labelled_images"]:
        return f"{question} Not measured: that needs labelled images."
    if not gaps:
        return f"{question} Not measured: no vision encoder has both accuracies."
    gap = gaps[0]
    unclear = f"That cannot be told from {gap['n']} point{'' if gap['n'] == 1 else 's'}"
    if gap["difference"] is None or gap["interval"] is None:
        return f"{question} {unclear}: {reason(gap)}."
    low, high = gap["interval"]
    answer = "Yes" if low > 0 else "No" if high < 0 else unclear
    difference = with_interval(gap["difference"], gap["interval"], sign="+")
    return f"{question} {answer}: the difference of r is {difference}, n = {gap['n']}."


def _listed(items: Sequence[str], most: int = 2) -> str:
    """``a, b and 3 others``."""
    more = len(items) - most
    named = list(items[:most])
    if more > 0:
        named.append(f"{more} other{'' if more == 1 else 's'}")
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))


def _close(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the strength of either lies in the interval of the other."""
    strengths = [(abs(c["pearson"]), _strengths(c)) for c in (one, other)]
    (a, (a_low, a_high)), (b, (b_low, b_high)) = strengths
    return bool(b_low <= a <= b_high or a_low <= b <= a_high)


def _strengths(correlation: Mapping[str, Any]) -> tuple[float, float]:
    low, high = correlation["pearson_interval"]
    return (low, high) if correlation["pearson"] >= 0 else (-high, -low)
