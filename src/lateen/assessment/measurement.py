"""Taking the measures of a pair of encoders, and of a vision encoder; none is taken twice.

Those of permuted rows, which tell what chance would give, are kept apart from the measures
themselves, so that these are found again whatever is asked of chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lateen.assessment.cache import cached_json
from lateen.assessment.labelled import LabelledStore
from lateen.assessment.measure import Measure, PairMeasure, VisionMeasure, measures
from lateen.assessment.recipe import MeasureSection
from lateen.assessment.spaces import SpacePair, attempt
from lateen.errors import LateenError
from lateen.metrics.features import check_rows
from lateen.metrics.permutation import row_permutations

_FEWEST = 4  # rows for which all measures are defined
Values = dict[str, Any]  # of measures, by key; None where one could not be taken
Notes = dict[str, str]  # why, by key
Nulls = dict[str, list[float]]  # of measures, by key: what each permutation gives


def measure_pair(
    spaces: Callable[[], SpacePair], decides: Any, settings: MeasureSection, folder: Path
) -> tuple[Values, Notes]:
    """Every measure of a pair, and why one is missing; what is done is not done again.

    Args:
        spaces: gives what is compared; only called where something is to be measured.
        decides: of the content of both spaces.
        settings: numbers of neighbours and components.
        folder: of the results.
    """
    rows = measures(PairMeasure)

    def work(_: str) -> dict[str, Any]:
        pair = spaces()
        check_rows(len(pair), _FEWEST, "comparing two spaces")
        values, notes = _take_each({row.key: partial(row.function, pair) for row in rows})
        return {"values": values, "notes": notes}

    result = cached_json(
        folder, "compare", [decides, settings.k, settings.svcca_dim], work,
        lambda earlier: _has_all(rows, earlier["values"]),
    )  # fmt: skip
    return _values_of(rows, result["values"]), _values_of(rows, result["notes"])


def measure_permuted(
    spaces: Callable[[], SpacePair], decides: Any, settings: MeasureSection, folder: Path
) -> tuple[Nulls, Notes]:
    """Every similarity of a pair with its rows permuted, and why one is missing; none without
    permutations. What is done is not done again.

    The permutations go by the number of rows and the seed alone, so that those of two pairs are the
    same, and the maximum over pairs has one of its own in each.

    Args:
        spaces, decides, folder: as of :func:`measure_pair`.
        settings: also number and seed of the permutations.
    """
    rows = [row for row in measures(PairMeasure) if row.calibrated]
    if not settings.permutations:
        return {}, {}

    def work(_: str) -> dict[str, Any]:
        pair = spaces()
        orders = attempt(
            lambda: row_permutations(
                len(pair), settings.permutations, seed=settings.seed, alpha=settings.alpha
            )
        )
        if isinstance(orders, LateenError):
            return {"nulls": {row.key: [] for row in rows},
                    "notes": {row.key: orders.message for row in rows}}  # fmt: skip
        nulls: Nulls = {row.key: [] for row in rows}
        notes: Notes = {}
        for order in orders:
            permuted = pair.permuted(order)
            left = {
                row.key: partial(row.function, permuted) for row in rows if row.key not in notes
            }
            values, missing = _take_each(left)
            notes |= missing
            for key, value in values.items():
                nulls[key].append(value)
        return {"nulls": {key: [] if key in notes else nulls[key] for key in nulls}, "notes": notes}

    conditions = [settings.k, settings.svcca_dim, settings.permutations, settings.seed]
    result = cached_json(
        folder, "permuted", [decides, conditions], work,
        lambda earlier: _has_all(rows, earlier["nulls"]),
    )  # fmt: skip
    nulls = {key: null for key, null in _values_of(rows, result["nulls"]).items() if null}
    return nulls, _values_of(rows, result["notes"])


def measure_vision(
    train: LabelledStore, test: LabelledStore | None, settings: MeasureSection, folder: Path
) -> tuple[Values, Notes]:
    """Every measure of a vision encoder, and why one is missing; what is done is not done again.

    Args:
        train: labelled features.
        test: features to be judged; without them all of ``train`` are, by the others.
        settings: numbers of neighbours, temperature, seed.
        folder: of the results.
    """
    rows = measures(VisionMeasure)
    judged, learned = (train, None) if test is None else (test, train)

    def work(_: str) -> dict[str, Any]:
        values, notes = _take_each(
            {row.key: partial(row.function, judged, learned, settings) for row in rows}
        )
        return {**values, "notes": notes}

    conditions = [list(settings.knn), settings.temperature, settings.seed]
    result = cached_json(
        folder, "quality", [train.key, test.key if test else None, conditions], work,
        partial(_has_all, rows),
    )  # fmt: skip
    return _values_of(rows, result), _values_of(rows, result["notes"])


def _take_each(functions: Mapping[str, Callable[[], Any]]) -> tuple[Values, Notes]:
    """What each function gives, ``None`` where it cannot be had, and the reasons.

    A measure that these features do not allow (fewer samples than neighbours, features that are all
    the same) must not keep an assessment of a hundred pairs from ending.
    """
    taken = {key: attempt(function) for key, function in functions.items()}
    notes = {key: value.message for key, value in taken.items() if isinstance(value, LateenError)}
    return {key: None if key in notes else value for key, value in taken.items()}, notes


def _has_all(rows: Iterable[Measure], values: Mapping[str, Any]) -> bool:
    """Whether results that were kept have every measure, those added since too."""
    return all(row.key in values for row in rows)


def _values_of(rows: Iterable[Measure], values: Mapping[str, Any]) -> dict[str, Any]:
    return {row.key: values[row.key] for row in rows if row.key in values}
