"""What people ask for: sentences and pictures, with weights, together or against each other.

``2:golden retriever + pool.jpg - "fruit"`` is twice the sentence, and the picture, and away from
fruit. A plus or minus counts where a space is on both sides of it, and outside quotation marks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from lateen.errors import DataError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_REMEDY = "Say in a few words what to look for."
_SPLIT = re.compile(r'\s+([+−-])(?=\s)(?=(?:[^"]*"[^"]*")*[^"]*$)')
_WEIGHT = re.compile(r"(\d+(?:\.\d+)?):\s*(.+)", re.DOTALL)
_QUOTES = '"“”„'
_ID = "id:"
_MOST_TERMS = 32
_HEAVIEST = 1000.0


@dataclass(frozen=True)
class Term:
    """A part of a query: one of text, image and id, with its weight.

    Attributes:
        weight: how much it counts; negative for what is not wanted.
        text: a sentence.
        image: a file, or an opened image.
        id: of a photograph of the index.
    """

    weight: float
    text: str | None = None
    image: Path | Image | None = None
    id: str | None = None

    def __str__(self) -> str:
        if self.text is not None:
            return f'"{self.text}"'
        if self.id is not None:
            return f"the photograph {self.id}"
        return self.image.name if isinstance(self.image, Path) else "a picture"


@dataclass(frozen=True)
class Query:
    """What is looked for: the sum of its terms' embeddings, each times its weight."""

    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not self.terms:
            raise UsageError("the query is empty", _REMEDY)
        if len(self.terms) > _MOST_TERMS:
            raise UsageError(f"the query has {len(self.terms)} parts", f"{_MOST_TERMS} are read.")
        if not all(abs(term.weight) <= _HEAVIEST for term in self.terms):
            raise UsageError(
                "a part of the query weighs too much", f"Weights go up to {_HEAVIEST:,.0f}."
            )
        if all(term.weight <= 0 for term in self.terms):
            raise UsageError(
                "the query says only what is not wanted", "Say what to look for, too: dog - cat."
            )

    @classmethod
    def parse(cls, text: str, *, files: bool = False) -> Query:
        """Read a query.

        Args:
            text: terms with `` + `` and `` - `` between them, each perhaps with ``WEIGHT:`` before
                it; ``id:`` begins one that is a photograph of the index.
            files: a term that is the path of a file is that picture.

        Raises:
            UsageError: an empty query, or one of negative terms alone.
            DataError: a picture that is not there.
        """
        sign, rest = 1.0, text.strip()
        for mark, value in (("+ ", 1.0), ("- ", -1.0), ("− ", -1.0)):
            if rest.startswith(mark):
                sign, rest = value, rest.removeprefix(mark)
        parts = _SPLIT.split(rest)
        signs = [sign, *(1.0 if mark == "+" else -1.0 for mark in parts[1::2])]
        terms = [_term(each, s, files) for each, s in zip(parts[::2], signs, strict=True)]
        return cls(tuple(terms))

    @classmethod
    def of(cls, query: Query | str | Path | Image | Sequence[Term]) -> Query:
        """A query as it is given: ready, or a plain sentence, file or opened image.

        A ``str`` is a sentence as it stands; :meth:`parse` reads one with weights and signs.
        """
        if isinstance(query, Query):
            return query
        if isinstance(query, str):
            if not query.strip():
                raise UsageError("the query is empty", _REMEDY)
            return cls((Term(1.0, text=query),))
        if isinstance(query, Path):
            _check_file(query)
            return cls((Term(1.0, image=query),))
        if isinstance(query, tuple | list):
            return cls(tuple(query))
        return cls((Term(1.0, image=cast("Image", query)),))

    @property
    def texts(self) -> list[str]:
        """The sentences, in order."""
        return [term.text for term in self.terms if term.text is not None]

    @property
    def images(self) -> list[Path | Image]:
        """The pictures, in order."""
        return [term.image for term in self.terms if term.image is not None]

    @property
    def ids(self) -> list[str]:
        """The photographs of the index, in order."""
        return [term.id for term in self.terms if term.id is not None]

    def __str__(self) -> str:
        """As it was understood: ``2 × "golden retriever" − "fruit"``."""
        if len(self.terms) == 1 and self.terms[0].weight == 1:
            return self.terms[0].text or str(self.terms[0])
        words = ""
        for term in self.terms:
            sign = ("− " if term.weight < 0 else "+ ") if words or term.weight < 0 else ""
            size = abs(term.weight)
            words += f" {sign}{f'{size:g} × ' if size != 1 else ''}{term}"
        return words.strip()


def _term(text: str, sign: float, files: bool) -> Term:
    words, weight = text.strip(), sign
    if found := _WEIGHT.fullmatch(words):
        weight, words = sign * float(found[1]), found[2].strip()
    literal = len(words) > 1 and words[0] in _QUOTES and words[-1] in _QUOTES
    words = words[1:-1].strip() if literal else words
    if not words:
        raise UsageError("a part of the query is empty", _REMEDY)
    if literal:
        return Term(weight, text=words)
    if words.startswith(_ID):
        return Term(weight, id=words.removeprefix(_ID))
    if files and _is_file(words):
        return Term(weight, image=Path(words).expanduser())
    return Term(weight, text=words)


def _is_file(text: str) -> bool:
    """Whether a term is the path of a picture.

    Raises:
        DataError: it can only be one, and is not there.
    """
    from lateen.data.images import IMAGE_SUFFIXES

    path = Path(text).expanduser()
    named = path.suffix.lower() in IMAGE_SUFFIXES
    try:
        there = path.is_file()
    except OSError:  # a sentence that is longer than a file's name can be
        return False
    if there and (named or "/" in text):
        return True
    if named and ("/" in text or " " not in text):
        _check_file(path)
    return False


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise DataError(f"there is no image {path}", "Check the path of the query.")
