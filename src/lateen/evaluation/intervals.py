"""The interval of every number of a result, and what each image contributes to it.

The contributions are kept in the result, so that two models can be compared image by image: what
makes an image hard for both then cancels.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from lateen.errors import DataError
from lateen.metrics.resampling import (
    Interval,
    Statistic,
    Tally,
    drawn_scores,
    interval_of,
    percentile_interval,
)

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Any]
Statistics = dict[str, Statistic]
_FromArrays = Callable[[Arrays], Statistics]
LEVEL = 0.95
_RESAMPLES = 1000
_FEWEST_RESAMPLES = 200
_DRAWS = 50_000_000  # of single images, in all draws together
# Of so many images on which two models differ, all for the same one, a coin would do it once in 32
# (a sign test at 5 %); of fewer, no draw can tell.
_FEWEST = 6


def resampled(statistics: _FromArrays, arrays: Arrays, units: Iterable[str]) -> dict[str, Any]:
    """What a result says of how sure its numbers are.

    The images, or examples, are drawn anew with replacement, with all that belongs to them; what
    they are retrieved among stays as it is. Training is not repeated.

    Args:
        statistics: a task's own, see :attr:`lateen.evaluation.Task.statistics`.
        arrays: what it makes them of: whole numbers, by name.
        units: ids of the images or examples, in the order that the arrays count them.

    Returns:
        JSON-ready: ``n``, how many units there are; ``intervals``, low and high by key path, at
        95 %; and ``per_query``, the arrays, which :func:`unpacked` gives back.
    """
    ids = list(units)
    whole = {name: _smallest(np.asarray(values)) for name, values in arrays.items()}
    by_path = statistics(whole)
    key = hashlib.sha256("\n".join(ids).encode("utf-8", "surrogatepass")).hexdigest()
    drawn = drawn_by_key(by_path, len(ids), key)
    intervals = {
        path: list(interval_of(statistic, drawn[path], len(ids), LEVEL))
        for path, statistic in by_path.items()
    }
    return {
        "n": len(ids),
        "intervals": intervals,
        "per_query": {
            "units": key,
            "arrays": {name: _packed(values) for name, values in whole.items()},
        },
    }


def shares(arrays: Arrays) -> Statistics:
    """For tasks of which each number is a share of the units: hits by the number's key path."""
    return {path: Tally(np.arange(len(hits)), hits) for path, hits in arrays.items()}


def resamples(units: int) -> int:
    """How many draws: 1,000, and fewer of very many units, where each says more."""
    return max(_FEWEST_RESAMPLES, min(_RESAMPLES, _DRAWS // max(1, units)))


def unpacked(result: Mapping[str, Any]) -> dict[str, Array] | None:
    """What each image or example of a result contributes; ``None`` where it was not kept.

    Raises:
        DataError: it is damaged.
    """
    if not (kept := result.get("per_query")):
        return None
    try:
        return {
            name: np.frombuffer(zlib.decompress(base64.b64decode(values["zlib"])), values["dtype"])
            for name, values in kept["arrays"].items()
        }
    except (ValueError, TypeError, LookupError, zlib.error) as error:
        raise DataError(
            f"per_query of a result of {result.get('task')} cannot be read ({error})",
            "Evaluate again.",
        ) from error


class Redrawn(NamedTuple):
    """A number in every draw of images, or examples, and what each of them contributes to it.

    Attributes:
        scores: ``[draws]``.
        by_unit: ``[units]``.
    """

    scores: Array
    by_unit: Array


def redrawn(result: Mapping[str, Any], statistics: _FromArrays) -> dict[str, Redrawn] | None:
    """Every number of a result in the draws of :func:`resampled`: those of two results on the same
    images are of the same images, those of other images have nothing to do with them.

    Args:
        result: of a task.
        statistics: the task's own.

    Returns:
        By key path; ``None`` where the result has not kept what the numbers are made of.

    Raises:
        DataError: it is damaged.
    """
    if (arrays := unpacked(result)) is None:
        return None
    by_path, units = statistics(arrays), int(result["n"])
    scores = drawn_by_key(by_path, units, units_key(result))
    return {path: Redrawn(scores[path], each.by_unit(units)) for path, each in by_path.items()}


class Difference(NamedTuple):
    """How much a number is above another's, by what the same images contribute to both.

    Attributes:
        interval: of the difference, paired: both are of the same draws of images.
        significant: whether the two can be told apart: the interval is on one side of 0, and there
            are images enough on which they differ.
    """

    interval: Interval
    significant: bool


def paired_difference(first: Redrawn, second: Redrawn, level: float = LEVEL) -> Difference:
    """The difference of two numbers in the same draws of the same images.

    Args:
        first: in every draw.
        second: likewise; it is taken from the first.
        level: share of the draws that the interval holds.
    """
    low, high = percentile_interval(first.scores - second.scores, level)
    enough = np.count_nonzero(first.by_unit != second.by_unit) >= _FEWEST
    return Difference((low, high), bool(enough and (low > 0 or high < 0)))


def units_key(result: Mapping[str, Any]) -> str:
    """What a result's images or examples are, as a hash of their ids; empty if not known."""
    return str((result.get("per_query") or {}).get("units", ""))


def drawn_by_key(statistics: Statistics, units: int, key: str) -> dict[str, Array]:
    """Every score in draws of the units, the same draws wherever the key is the same.

    Args:
        statistics: by name.
        units: how many there are.
        key: a hash of their ids, see :func:`units_key`.
    """
    return drawn_scores(statistics, units, resamples=resamples(units), seed=int(key[:8], 16))


def interval(result: Mapping[str, Any], path: str) -> Interval | None:
    """The interval of a number of a result; ``None`` where there is none."""
    found = result.get("intervals", {}).get(path)
    return (float(found[0]), float(found[1])) if found else None


def _smallest(values: Array) -> Array:
    """Whole numbers in the smallest type that holds them."""
    values = values.astype(np.int64)
    kinds = (np.uint8, np.uint16, np.uint32)
    high = int(values.max(initial=0))
    return values.astype(next((k for k in kinds if high <= np.iinfo(k).max), np.int64))


def _packed(values: Array) -> dict[str, str]:
    data = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"))
    packed = base64.b64encode(zlib.compress(data.tobytes(), 9)).decode("ascii")
    return {"dtype": data.dtype.str, "zlib": packed}
