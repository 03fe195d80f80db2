"""Which similarities of spaces chance would give too: of every pair, and of the best layers.

A network whose layers are candidates has many pairs with another, and the most similar of many is
high by chance alone. It is held against the most similar of as many in each permutation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lateen.assessment.candidates import Candidate
from lateen.assessment.leaderboard import Results, Row
from lateen.assessment.measure import PairMeasure, measures
from lateen.assessment.measurement import Notes, Nulls
from lateen.assessment.recipe import MeasureSection
from lateen.metrics.permutation import calibrate
from lateen.report import Column, TableData

CHANCE = "°"  # beside a similarity that is no more than chance


def calibrated_row(row: Row, permuted: tuple[Nulls, Notes], settings: MeasureSection) -> Row:
    """A row of the leaderboard with its similarities held against those of permuted rows."""
    nulls, notes = permuted
    calibrated = {
        key: calibrate(row[key], null, alpha=settings.alpha).as_dict()
        for key, null in nulls.items()
        if row[key] is not None
    }
    missing = {_note(key): why for key, why in notes.items() if row[key] is not None}
    return {**row, "calibrated": calibrated, "notes": {**row["notes"], **missing}}


def best_of_networks(
    vision: Sequence[Candidate], text: Sequence[Candidate],
    rows: Mapping[tuple[int, int], Row], nulls: Mapping[tuple[int, int], Nulls],
    settings: MeasureSection,
) -> list[dict[str, Any]]:  # fmt: skip
    """For every two networks their most similar candidates, by each measure, held against chance.

    Args:
        vision: the vision candidates.
        text: the text candidates.
        rows: of the leaderboard, by vision and text candidate.
        nulls: of the same pairs.
        settings: alpha.

    Returns:
        An entry for each two networks: their names, how many pairs of candidates they have, and
        under ``best`` by measure the pair, its value, and score and p as of the maximum.
    """
    groups: dict[Any, list[tuple[int, int]]] = {}
    for v, t in rows:
        groups.setdefault((vision[v].networks, text[t].networks), []).append((v, t))
    entries = []
    for members in groups.values():
        best = {}
        for key in calibrated_keys():
            taken = [pair for pair in members if key in nulls[pair] and rows[pair][key] is not None]
            if not taken:
                continue
            top = rows[max(taken, key=lambda pair: rows[pair][key])]
            # One permutation serves all pairs, and its maximum is over all of them.
            null = np.max([nulls[pair][key] for pair in taken], axis=0)
            best[key] = {
                "vision_label": top["vision_label"], "text_label": top["text_label"],
                "value": top[key], **calibrate(top[key], null, alpha=settings.alpha).as_dict(),
            }  # fmt: skip
        names = (
            candidates[at].name for candidates, at in zip((vision, text), members[0], strict=True)
        )
        named = dict(zip(("vision", "text"), names, strict=True))
        entries.append({**named, "pairs": len(members), "best": best})
    return entries


def calibrated_keys() -> list[str]:
    """The measures that are held against chance."""
    return [row.key for row in _calibrated()]


def is_chance(results: Results, calibrated: Mapping[str, Any]) -> bool:
    """Whether a similarity that was calibrated is no more than chance."""
    return bool(calibrated["p"] > results["conditions"]["measure"]["alpha"])


def chance_rule(results: Results) -> str:
    """What the mark says, in words."""
    measure = results["conditions"]["measure"]
    return (
        f"no more alike than chance, p > {measure['alpha']:g} over {measure['permutations']:,} "
        "permutations of the rows"
    )


def similarity_cell(results: Results, row: Row, key: str, *, score: bool) -> str | None:
    """A row's similarity, with the calibrated one in brackets, and a mark where it is chance."""
    value, calibrated = row.get(key), row.get("calibrated", {}).get(key)
    if value is None or calibrated is None:
        return None if value is None else f"{value:.2f}"
    mark = CHANCE if is_chance(results, calibrated) else ""
    return f"{value:.2f}{mark}" + (f" ({calibrated['score']:.2f})" if score else "")


def chance_notes(results: Results, *, score: bool) -> list[str]:
    """What brackets and marks in a table are; nothing where nothing was held against chance."""
    if not any(row.get("calibrated") for row in results["rows"]):
        return []
    brackets = "in brackets calibrated, 0 = no more than chance and 1 = the same; " if score else ""
    return [f"Similarity of spaces: {brackets}{CHANCE} {chance_rule(results)}."]


def networks_table(results: Results, width: int | None = None) -> TableData:
    """The most similar candidates of every two networks; no row where none was calibrated.

    Args:
        results: the content of ``assessment.json``.
        width: in characters, if it is limited; then it has but the measures that have a plot, of
            which the leaderboard may show none.
    """
    entries = [entry for entry in results.get("networks", []) if entry["best"]]
    shown = [
        row
        for row in _calibrated()
        if any(row.key in entry["best"] for entry in entries) and (width is None or row.scatter)
    ]
    columns = [Column("vision"), Column("text"), Column("pairs", 0, whole=True)]
    columns += [Column(row.heading or row.name, whole=True) for row in shown]
    rows = [
        [entry["vision"], entry["text"], entry["pairs"],
         *(_best_cell(results, entry["best"].get(row.key)) for row in shown)]
        for entry in entries
    ]  # fmt: skip
    note = (
        "The highest over all their layers and poolings, in brackets calibrated and its p: against "
        f"the highest of as many pairs in each permutation. {CHANCE} {chance_rule(results)}."
        if entries else ""
    )  # fmt: skip
    return TableData("Most similar layers of two networks", columns, rows, note)


def _best_cell(results: Results, best: Mapping[str, Any] | None) -> str | None:
    if best is None:
        return None
    mark = CHANCE if is_chance(results, best) else ""
    return f"{best['value']:.2f}{mark} ({best['score']:.2f}, p {best['p']:.3f})"


def chance_sentence(results: Results) -> str:
    """How many similarities are no more than chance, by measure; empty if none was calibrated."""
    counts = dict(_counts(results))
    if not counts:
        return ""
    of = f"of {len(results['rows']):,} {'pair' if len(results['rows']) == 1 else 'pairs'}"
    chance = [f"{name} of {count:,}" for name, count in counts.items() if count]
    if not chance:
        return f"By every measure all {of[3:]} are more alike than chance would make them."
    return f"Some {of} are {chance_rule(results)}: {', '.join(chance)}."


def _counts(results: Results) -> Iterator[tuple[str, int]]:
    for measure in _calibrated():
        taken = [
            row["calibrated"][measure.key]
            for row in results["rows"]
            if measure.key in row.get("calibrated", {})
        ]
        if taken:
            yield measure.name, sum(is_chance(results, one) for one in taken)


def chance_remarks(results: Results) -> Iterator[str]:
    """Why similarities could not be held against chance."""
    for measure in _calibrated():
        reasons = Counter(row["notes"].get(_note(measure.key)) for row in results["rows"])
        for why, count in reasons.items():
            if why is not None:
                pairs = "pair" if count == 1 else "pairs"
                yield f"{measure.name} of {count:,} {pairs} is not held against chance: {why}."


def _note(key: str) -> str:
    """Where a row's notes say why a measure is not held against chance."""
    return f"calibrated.{key}"


def _calibrated() -> list[PairMeasure]:
    return [row for row in measures(PairMeasure) if row.calibrated]
