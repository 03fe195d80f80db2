"""What a search gives: hits, and what was left out and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Hit:
    """One search result.

    Attributes:
        id: unique in what was searched; an image's path relative to the folder.
        path: where it is.
        score: cosine between the query's and the image's embedding, -1 to 1.
        adjusted: by which the images are ordered with a query bank, the score less the image's
            hubness; ``None`` without one.
        probability: that the photograph shows what was asked for; ``None`` where nothing tells, as
            of pictures as queries.
        about: its other columns.
        confidence: of a label, 0 to 1; ``None`` in other results.
    """

    id: str
    path: Path
    score: float
    adjusted: float | None = None
    probability: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict, compare=False)
    confidence: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        known = {
            "adjusted": self.adjusted, "probability": self.probability,
            "confidence": self.confidence,
        }  # fmt: skip
        given = {name: value for name, value in known.items() if value is not None}
        about = {
            name: value.isoformat() if hasattr(value, "isoformat") else value
            for name, value in self.about.items()
        }
        own = {"id": self.id, "path": str(self.path), "score": self.score, **given}
        # A table may have a column of the same name.
        return own | {name: value for name, value in about.items() if name not in own}


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        hits: best first.
        query: as it was understood.
        among: how many photographs the filters leave.
        cut_off: the probability below which none is shown; ``None`` where there is no cut-off.
        nothing: whether the cut-off leaves none: there is nothing like that.
        nearest: the best one that it leaves out then.
        same: ids of those left out, as they are the query itself, to the byte.
    """

    hits: list[Hit]
    query: str
    among: int
    cut_off: float | None = None
    nothing: bool = False
    nearest: Hit | None = None
    same: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        nearest = None if self.nearest is None else self.nearest.as_dict()
        return {**vars(self), "hits": [hit.as_dict() for hit in self.hits], "nearest": nearest}


@dataclass(frozen=True)
class LabelHits:
    """The photographs of a label.

    Attributes:
        label: as it was given.
        count: how many have it as the best one.
        hits: the surest of them, with their ``confidence``.
    """

    label: str
    count: int
    hits: list[Hit]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "hits": [hit.as_dict() for hit in self.hits]}
