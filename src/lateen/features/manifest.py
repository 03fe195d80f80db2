"""What a store says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lateen.encoders import EncoderInfo
from lateen.errors import StoreError
from lateen.files import content_key, read_json

FORMAT = "lateen-store"
VERSION = 1
MANIFEST = "manifest.json"
PLAN = "plan.json"  # the description alone, while a store is being written
SKIPPED = "skipped.jsonl"
SLICE = "slice.json"  # in a folder of one slice of a store
FeatureDtype = Literal["float16", "float32"]
StoredDtype = FeatureDtype | Literal["int32"]  # int32: token ids


@dataclass(frozen=True)
class Description:
    """Everything that decides a store's bytes; its :attr:`key` changes when any of it does.

    Attributes:
        modality: ``image`` or ``text``.
        dim: length of a feature vector.
        encoder: the :class:`~lateen.encoders.base.EncoderInfo` as a dict.
        encoder_key: its content key.
        source: the dataset's name, for people.
        fingerprint: the dataset's content fingerprint.
        column: the caption column of a text store.
        dtype: number format on disk.
        shard_items: how many input items (images or captions) one shard covers.
    """

    modality: Literal["image", "text"]
    dim: int
    encoder: Mapping[str, Any]
    encoder_key: str
    source: str
    fingerprint: str
    column: str | None = None
    dtype: StoredDtype = "float16"
    shard_items: int = 8192

    @classmethod
    def of(
        cls, info: EncoderInfo, *, source: str, fingerprint: str, column: str | None = None,
        dtype: StoredDtype = "float16", shard_items: int = 8192,
    ) -> Description:  # fmt: skip
        """The store of an encoder's features; the arguments are the attributes of the same name."""
        return cls(
            modality=info.modality, dim=info.dim, encoder=info.as_dict(), encoder_key=info.key,
            source=source, fingerprint=fingerprint, column=column, dtype=dtype,
            shard_items=shard_items,
        )  # fmt: skip

    @property
    def key(self) -> str:
        """Content key (64 hex digits). What only names things (``source``, the encoder's id) stays
        out."""
        values = self.as_dict()
        del values["source"], values["encoder"]
        return content_key(values)

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready copy."""
        return {**asdict(self), "encoder": dict(self.encoder)}


@dataclass(frozen=True)
class Shard:
    """One file of a store.

    Attributes:
        file: its name.
        rows: how many rows it has.
        start: the first input item it covers.
        stop: one past the last input item it covers.
        bytes: its size.
        sha256: of all its bytes.
        content: SHA-256 of its features and ids alone, without what was skipped and where.
    """

    file: str
    rows: int
    start: int
    stop: int
    bytes: int
    sha256: str
    content: str


@dataclass(frozen=True)
class Manifest:
    """A finished store: its description, its shards, and what was left out."""

    description: Description
    rows: int
    shards: tuple[Shard, ...]
    skipped: int
    notes: Mapping[str, int] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The JSON of ``manifest.json``."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "key": self.description.key,
            "content": self.content,
            "rows": self.rows,
            "skipped": self.skipped,
            "notes": dict(self.notes),
            "description": self.description.as_dict(),
            "shards": [asdict(shard) for shard in self.shards],
            "versions": dict(self.versions),
        }

    @property
    def content(self) -> str:
        """Content key of features and ids: equal for stores with equal rows in equal shards."""
        return content_key([shard.content for shard in self.shards])

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read ``folder``'s manifest.

        Raises:
            StoreError: there is none, or it is not one of lateen's.
        """
        path = folder / MANIFEST
        if not path.is_file():
            raise _absent(folder)
        values = read_json(path)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise StoreError(f"{path} is not a lateen store manifest", "Point at a store folder.")
        if values.get("version") != VERSION:
            raise StoreError(
                f"{folder} has store version {values.get('version')}, this lateen reads {VERSION}",
                "Encode it again, or use the lateen version that wrote it.",
            )
        try:
            return cls(
                description=Description(**values["description"]),
                rows=values["rows"],
                shards=tuple(Shard(**shard) for shard in values["shards"]),
                skipped=values["skipped"],
                notes=values["notes"],
                versions=values["versions"],
            )
        except (KeyError, TypeError) as error:
            raise StoreError(f"{path} is damaged ({error})", "Encode the store again.") from error


def _absent(folder: Path) -> StoreError:
    if (folder / SLICE).is_file():
        return StoreError(
            f"{folder} holds one slice of a store", "Make one store of all: `lateen merge`."
        )
    if (folder / PLAN).is_file():
        return StoreError(
            f"{folder} is not finished: its encoding was interrupted",
            "Run the same encode command again: it goes on where it stopped.",
        )
    what = "is not a feature store" if folder.exists() else "does not exist"
    return StoreError(
        f"{folder} {what} (no {MANIFEST})", "Make one with `lateen encode` or `lateen import`."
    )
