"""An ANN index of many photographs, with as many probes as find 95 % of the ten nearest.

Inverted lists of vectors with a byte for each value, whose best are compared exactly. How many
lists are looked in is found on queries that are known: captions of the query bank, which lie
elsewhere than images do, else photographs of the index itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lateen.indexing.about import IndexAbout
from lateen.indexing.gallery import vectors_of
from lateen.indexing.given_model import GivenModel, query_vector
from lateen.indexing.table import ID, VECTOR, PhotoTable
from lateen.progress import log

if TYPE_CHECKING:
    from numpy.typing import NDArray

RECALL = 0.95
"""The share of the ten nearest that is to be found."""
_K, _QUERIES, _REFINE = 10, 50, 5
_PROBES = (10, 20, 40, 80, 160, 320, 640)
_GROWN = 2.0  # times, after which the lists are made anew


def fitted_ann(table: PhotoTable, about: IndexAbout, given: GivenModel) -> Mapping[str, Any]:
    """Make the ANN index, unless there is one of about as many photographs, and find how to ask it.

    Args:
        table: the photographs.
        about: what they are of.
        given: their model.

    Returns:
        ``rows`` that the lists were made of, ``probes`` and ``refine`` of a query, the ``recall``
        at 10 that they have, among ``photographs``, of how many ``queries``, what these ``are``.
    """
    count = table.count()
    known = about.ann
    if known is None or count > _GROWN * known["rows"]:
        log.info("ANN index of %s photographs", f"{count:,}")
        table.build_ann(max(1, round(math.sqrt(count))))
        known = {"rows": count}
    elif known.get("photographs") == count:
        return known
    queries, what = _queries(table, about, given)
    exact = [_found(table, query, None) for query in queries]
    probes, recall = _PROBES[-1], 0.0
    for probes in _PROBES:
        shares = [
            len(_found(table, q, probes) & e) / len(e) for q, e in zip(queries, exact, strict=True)
        ]
        recall = float(np.mean(shares))
        if recall >= RECALL:
            break
    log.log(
        20 if recall >= RECALL else 30,
        "ANN index: %.1f %% of the ten nearest are found (%d probes, %d %s)",
        100 * recall, probes, len(queries), what,
    )  # fmt: skip
    return {
        "rows": known["rows"], "photographs": count, "probes": probes, "refine": _REFINE,
        "recall": recall, "queries": len(queries), "are": what,
    }  # fmt: skip


def _queries(
    table: PhotoTable, about: IndexAbout, given: GivenModel
) -> tuple[list[NDArray[np.float32]], str]:
    """Queries that tell how well is found, and what they are."""
    bank = given.model.query_bank if about.bank and given.path else None
    if bank is not None and bank.key == about.bank:
        some = bank.texts[:_QUERIES].float().numpy()
        return [query_vector(each, about, 1.0) for each in some], "captions of the query bank"
    ids = sorted(table.rows([ID])[ID].to_pylist())
    chosen = [ids[i] for i in np.random.default_rng(0).permutation(len(ids))[:_QUERIES]]
    vectors = vectors_of(table.rows_of(ID, chosen, [ID, VECTOR]))
    return [query_vector(v[: about.dim], about, 0.0) for v in vectors], "of its photographs"


def _found(table: PhotoTable, query: NDArray[np.float32], probes: int | None) -> set[str]:
    refine = 1 if probes is None else _REFINE
    return set(table.nearest(query, _K, [ID], probes=probes, refine=refine)[ID].to_pylist())
