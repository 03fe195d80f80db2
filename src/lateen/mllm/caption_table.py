"""Captions on disk: the table that is made, and beside it those that came since it was written."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lateen.data.tables import find_id_column, find_image_column
from lateen.errors import DataError, UsageError
from lateen.files import atomic_path, folder_lock
from lateen.mllm.captioner import Captioned
from lateen.mllm.line_file import LineFile, how_differs

_META = b"lateen.captions"
_ANSWERS = "answers.jsonl"
_CONTENT = "image_hash"
_WHAT = "captions"
_OTHER = "Choose another --out, or make all of them anew with --overwrite."
_FIELDS = tuple(each.name for each in fields(Captioned) if each.name != "caption")


@dataclass(frozen=True)
class CaptionRow:
    """A row of the table.

    Attributes:
        id: of the sample.
        content: hash of the image's bytes; empty where it cannot be read.
        made: its caption, or why it has none.
    """

    id: str
    content: str
    made: Captioned


@dataclass(frozen=True)
class Before:
    """What a table has, as it was found.

    Attributes:
        column: of the captions.
        identity: what they depend on beside the image.
        rows: in order.
    """

    column: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    rows: Sequence[CaptionRow] = ()


class CaptionTable:
    """A Parquet file of captions by id, which says how they were asked for.

    Its columns are ``id``, the captions', ``finish``, ``reason``, ``model``, ``prompt_tokens``,
    ``answer_tokens`` and ``image_hash``. An image without a caption has a row, too.

    Args:
        path: of the file.
        column: of the captions.

    Raises:
        UsageError: the path is no such file's, or the column has the name of another.
    """

    def __init__(self, path: Path, column: str) -> None:
        if path.suffix.lower() != ".parquet":
            raise UsageError(f"{path} does not end in .parquet", "Give such a name.")
        taken = ("id", *_FIELDS, _CONTENT)
        if column in taken or find_id_column([column]) or find_image_column([column], None):
            raise UsageError(
                f"the captions' column cannot be called {column!r}",
                "That is another column's name: take one such as vlm_caption.",
            )
        self.path, self.column = path, column

    @property
    def parts(self) -> Path:
        """The folder of what came since the file was written."""
        return self.path.with_name(f"{self.path.name}.parts")

    def read(self) -> Before:
        """What the file has; nothing where there is none.

        Raises:
            UsageError: the file is of something else.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not self.path.exists():
            return Before()
        try:
            table = pq.read_table(self.path)
            known = json.loads((table.schema.metadata or {})[_META])
        except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
            raise UsageError(
                f"{self.path} is there, and `lateen caption` has not made it",
                "Choose another --out.",
            ) from error
        rows = [
            CaptionRow(
                row["id"], row[_CONTENT],
                Captioned(row[known["column"]], **{name: row[name] for name in _FIELDS}),
            )
            for row in table.to_pylist()
        ]  # fmt: skip
        return Before(known["column"], known["identity"], rows)

    def write(self, rows: Sequence[CaptionRow], identity: Mapping[str, Any]) -> None:
        """Put these rows in the place of those that were there."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        text, count = pa.string(), pa.int64()
        columns = {
            "id": pa.array([row.id for row in rows], text),
            self.column: pa.array([row.made.caption for row in rows], text),
            **{
                name: pa.array(
                    [getattr(row.made, name) for row in rows],
                    count if name.endswith("_tokens") else text,
                )
                for name in _FIELDS
            },
            _CONTENT: pa.array([row.content for row in rows], text),
        }
        about = json.dumps({"column": self.column, "identity": identity}, ensure_ascii=False)
        table = pa.table(columns).replace_schema_metadata({_META: about.encode()})
        with atomic_path(self.path) as temporary:
            pq.write_table(table, temporary)

    @contextlib.contextmanager
    def begun(self, identity: Mapping[str, Any], *, overwrite: bool) -> Iterator[Kept]:
        """What is there of these captions, with a place for more; other processes are kept out.

        Args:
            identity: what captions depend on beside the image.
            overwrite: leave out those that depend on something else.

        Raises:
            UsageError: there are captions that depend on something else.
            BusyError: another process makes them.
        """
        try:
            with folder_lock(self.parts):
                before = self.read()
                if before.rows and (differing := how_differs(before.identity, identity)):
                    if not overwrite:
                        raise UsageError(f"{self.path} was made otherwise ({differing})", _OTHER)
                    before = Before()
                with contextlib.closing(self._lines(identity, overwrite)) as lines:
                    yield Kept(before, lines)
        finally:
            if not (self.parts / _ANSWERS).exists():
                self.drop_parts()

    def _lines(self, identity: Mapping[str, Any], overwrite: bool) -> LineFile:
        """The file of what came since."""
        file = self.parts / _ANSWERS
        try:
            return LineFile(file, identity, _WHAT, _OTHER)
        except DataError:
            if not overwrite:
                raise
        file.unlink()
        return LineFile(file, identity, _WHAT, _OTHER)

    def drop_parts(self) -> None:
        """Remove what has come into the file."""
        shutil.rmtree(self.parts, ignore_errors=True)


class Kept:
    """Captions that are there, by the content of their images.

    Args:
        before: of the table.
        lines: that came since.

    Attributes:
        before: as given.
    """

    def __init__(self, before: Before, lines: LineFile) -> None:
        self.before = before
        self._lines = lines
        self._made = {r.content: r.made for r in before.rows if r.made.finish != "unreadable"}
        for line in lines.rows:
            self._made[line["content"]] = Captioned(**line["made"])

    def __len__(self) -> int:
        return len(self._made)

    def get(self, content: str, *, captions_alone: bool = False) -> Captioned | None:
        """What was made of an image; ``None`` if nothing was.

        Args:
            content: hash of its bytes.
            captions_alone: an answer without a caption is none.
        """
        made = self._made.get(content)
        return None if made and captions_alone and made.caption is None else made

    def add(self, content: str, made: Captioned) -> None:
        """Have it on disk at once."""
        self._lines.add({"content": content, "made": asdict(made)})
        self._made[content] = made
