"""What is written of an index: of which photographs it is, and which model embeds for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lateen.errors import StoreError

FORMAT = 1
_PAD = 8  # a vector's length is a multiple of


@dataclass(frozen=True)
class IndexAbout:
    """What an index is of.

    Attributes:
        source: the folder or dataset of the photographs.
        root: the folder that their paths are relative to; empty where they are in no files.
        model: its folder, or hub id; empty for one that was given as an object.
        model_key: its content key.
        model_files: size and time of the model's files when its key was found.
        dim: of its embeddings.
        scale: t, of a label's confidence.
        bank: the key of the query bank that the hubness is by; empty if there is none.
        bank_words: what is in it.
        reach: the largest hubness for which vectors are of one length.
        likely_scale: t of the probability that a photograph shows what was asked.
        likely_bias: b of it; ``None`` where nothing is known of either.
        cut_off: the probability from which on photographs are shown; likewise.
        created: when the index was begun, ISO 8601.
        updated: when it was last brought up to date.
        ann: how an ANN index is asked (``probes``, ``refine``, ``rows``), and how well it finds:
            ``recall`` at 10 in ``queries``; ``None`` where search is exact.
    """

    source: str
    root: str
    model: str
    model_key: str
    model_files: str
    dim: int
    scale: float
    bank: str = ""
    bank_words: str = ""
    reach: float = 0.0
    likely_scale: float | None = None
    likely_bias: float | None = None
    cut_off: float | None = None
    created: str = ""
    updated: str = ""
    ann: Mapping[str, Any] | None = None

    @property
    def width(self) -> int:
        """Length of a vector: the embedding, minus the hubness, and what makes all equally long."""
        return -(-(self.dim + 2) // _PAD) * _PAD

    @property
    def name(self) -> str:
        """The last part of the source's name."""
        return self.source.rstrip("/").rpartition("/")[2] or self.source

    def as_json(self) -> str:
        """JSON in one line."""
        return json.dumps({"format": FORMAT, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def of_json(cls, text: str, place: str) -> IndexAbout:
        """Read it.

        Args:
            text: JSON.
            place: of the index, for errors.

        Raises:
            StoreError: it is of another format.
        """
        version: Any = None
        try:
            known = json.loads(text)
            version = known.pop("format")
            if version == FORMAT:
                return cls(**known)
        except (ValueError, TypeError, KeyError, AttributeError):
            version = version if version != FORMAT else f"{FORMAT}, damaged"
        raise StoreError(
            f"{place} is an index of format {version}, and this lateen reads {FORMAT}",
            "Make it anew: lateen index ... --overwrite; no photograph is encoded again.",
        )
