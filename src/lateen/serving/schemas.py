"""What requests and answers are made of; the page at ``/docs`` is written from it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from lateen.serving.settings import (
    MOST_CHARACTERS,
    MOST_CONDITION,
    MOST_HITS,
    MOST_LABELS,
    MOST_OFFSET,
    MOST_TEXTS,
)  # fmt: skip

Words = Annotated[str, StringConstraints(max_length=MOST_CHARACTERS)]
Name = Annotated[str, StringConstraints(max_length=MOST_CHARACTERS)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Filter(_Strict):
    """Which photographs to look among: those that are all of it."""

    since: Annotated[str | None, Field(
        max_length=10, description="taken in that year, month or day or later: 2024, 2024-05-31",
    )] = None  # fmt: skip
    until: Annotated[str | None, Field(
        max_length=10, description="taken before its end",
    )] = None  # fmt: skip
    folder: Annotated[str | None, Field(
        max_length=MOST_CHARACTERS, description="in that folder of the index, or below it",
    )] = None  # fmt: skip
    where: Annotated[str | None, Field(
        max_length=MOST_CONDITION,
        description="true of their columns, in SQL: width > 2000 AND rating >= 4",
    )] = None  # fmt: skip


K = Annotated[int, Field(ge=1, le=MOST_HITS, description="how many photographs")]
Offset = Annotated[int, Field(
    ge=0, le=MOST_OFFSET, description="how many that are better are left out",
)]  # fmt: skip
Cut = Annotated[bool, Field(
    description="leave out what hardly shows it, where the model can tell",
)]  # fmt: skip


class SearchRequest(_Strict):
    """A search."""

    query: Annotated[Words, Field(
        description='a sentence, or several with weights: 2:a dog + "on a beach" - id:a/b.jpg',
    )]  # fmt: skip
    k: K = 24
    offset: Offset = 0
    filter: Filter = Field(default_factory=Filter)
    cut: Cut = True


class ClassifyRequest(_Strict):
    """Labels to sort photographs by."""

    labels: Annotated[list[Name], Field(
        min_length=2, max_length=MOST_LABELS, description="what the photographs may be of",
    )]  # fmt: skip
    k: Annotated[int, Field(
        ge=0, le=MOST_HITS, description="how many photographs of each label",
    )] = 12  # fmt: skip
    filter: Filter = Field(default_factory=Filter)


class EmbedRequest(_Strict):
    """Texts to embed."""

    texts: Annotated[list[Words], Field(min_length=1, max_length=MOST_TEXTS)]


class Hit(BaseModel):
    """A photograph, with every column that the index has of it."""

    model_config = ConfigDict(extra="allow")

    id: str
    path: Annotated[str, Field(description="relative to the indexed folder")]
    score: Annotated[float, Field(description="cosine between query and photograph, −1 to 1")]
    adjusted: Annotated[float | None, Field(
        description="the score less the photograph's hubness, which orders the hits",
    )] = None  # fmt: skip
    probability: Annotated[float | None, Field(
        description="that the photograph shows what was asked, where the model can tell",
    )] = None  # fmt: skip
    confidence: Annotated[float | None, Field(description="of a label, among those given")] = None


class SearchAnswer(BaseModel):
    """What was found."""

    hits: Annotated[list[Hit], Field(description="best first")]
    query: Annotated[str, Field(description="as it was understood")]
    among: Annotated[int, Field(description="photographs that the filter leaves")]
    cut_off: Annotated[float | None, Field(
        description="probability below which none is shown; null where there is no cut-off",
    )]  # fmt: skip
    nothing: Annotated[bool, Field(description="the cut-off leaves none: nothing is like that")]
    nearest: Annotated[Hit | None, Field(description="the best one that it leaves out then")] = None
    next: Annotated[int | None, Field(description="the offset that goes on; null at the end")]


class LabelAnswer(BaseModel):
    """The photographs of a label."""

    label: str
    count: Annotated[int, Field(description="photographs that it fits best")]
    hits: Annotated[list[Hit], Field(description="the surest of them")]


class ClassifyAnswer(BaseModel):
    """Every photograph's best label."""

    labels: list[LabelAnswer]
    among: Annotated[int, Field(description="photographs that the filter leaves")]


class EmbedAnswer(BaseModel):
    """Embeddings, of length 1."""

    vectors: list[list[float]]
    dim: int
    model: str


class FolderAnswer(BaseModel):
    """A folder of the index."""

    folder: str
    count: Annotated[int, Field(description="photographs in it and below")]


class FoldersAnswer(BaseModel):
    """Every folder, and from when to when photographs were taken."""

    folders: list[FolderAnswer]
    first: str | None
    last: str | None


class AboutAnswer(BaseModel):
    """What is served."""

    name: str
    photographs: int
    model: str
    dim: int
    updated: str
    cut_off: float | None
    columns: Annotated[list[str], Field(description="that a condition may compare")]
    originals: bool
    version: str


class HealthAnswer(BaseModel):
    """That the server answers."""

    status: str
    photographs: int


class Failure(BaseModel):
    """What is wrong, and what to do about it."""

    error: str
    remedy: str


FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": what}
    for status, what in {
        400: "the request is wrong", 401: "the token is missing", 403: "not to be read",
        404: "no such photograph", 410: "it has vanished, or changed since it was indexed",
        413: "too many bytes or pixels", 422: "no picture that can be decoded",
        429: "more than one client may ask", 503: "too much is waiting",
    }.items()
}  # fmt: skip
