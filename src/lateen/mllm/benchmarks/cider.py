"""How like people's captions a model's are: CIDEr-D (arXiv:1411.5726), by pycocoevalcap.

What is counted are sequences of words, so that numbers depend on how a text is cut into words.
Papers use the Penn Treebank tokenizer of Stanford's CoreNLP, which pycocoevalcap brings and runs
with Java. Without Java words are found by :func:`plain_words`, and the numbers are near those of
papers and not the same; which it was is part of a result.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lateen.errors import LateenError, UsageError, reason
from lateen.progress import log

PTB, PLAIN = "the PTB tokenizer", "lateen's own rule, since there is no Java"
_PACKAGE = "pycocoevalcap"
_WORD = re.compile(r"[^\W_]+(?:[-.,/][^\W_]+)*|'[^\W_]+")
_Texts = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Ciders:
    """What captions score.

    Attributes:
        values: by image, from 0 to 10; papers print the mean of them times 100.
        tokenized_by: how words were found.
    """

    values: Mapping[str, float]
    tokenized_by: str


def require_cider() -> None:
    """See that CIDEr-D can be computed.

    Raises:
        UsageError: pycocoevalcap is not installed.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise UsageError(
            f"scoring captions (CIDEr-D) needs the package {_PACKAGE!r}, which is not installed",
            f"Install it with: pip install {_PACKAGE} (100 MB); with Java beside it words are "
            "found as in papers.",
        )


def cider(references: _Texts, captions: Mapping[str, str]) -> Ciders:
    """CIDEr-D of a caption for each image.

    How much a sequence of words counts follows from how many of these images' references have it,
    so that the same caption scores differently among other images.

    Args:
        references: people's captions, by image.
        captions: to be scored, one for each.

    Raises:
        UsageError: pycocoevalcap is not installed.
        LateenError: the PTB tokenizer fails.
    """
    require_cider()
    by = PTB if shutil.which("java") else PLAIN
    words = _ptb_words if by == PTB else _plain_words
    right = words(references)
    given = words({name: [captions[name]] for name in references})
    scorer = importlib.import_module(f"{_PACKAGE}.cider.cider").Cider()
    _, values = scorer.compute_score(right, given)
    return Ciders(dict(zip(right, map(float, values), strict=True)), by)


def plain_words(text: str) -> str:
    """The words of a caption in lower case, without punctuation, a space between two.

    A hyphen, point, comma or slash within a word stays, and what follows an apostrophe is a word of
    its own, as the PTB tokenizer has it.

    >>> plain_words("A man's well-worn T-shirt, 2.5 m.")
    "a man 's well-worn t-shirt 2.5 m"
    """
    return " ".join(_WORD.findall(text.lower().replace("\u2019", "'")))


def _plain_words(texts: _Texts) -> dict[str, list[str]]:
    return {name: [plain_words(text) for text in some] for name, some in texts.items()}


def _ptb_words(texts: _Texts) -> dict[str, list[str]]:
    """Raises LateenError where Java does not give a line for each text."""
    tokenizer: Any = importlib.import_module(f"{_PACKAGE}.tokenizer.ptbtokenizer").PTBTokenizer
    lines = {
        str(at): [{"caption": " ".join(text.split())} for text in some]
        for at, some in enumerate(texts.values())
    }
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            found = tokenizer().tokenize(lines)
    except OSError as error:  # it writes a file beside itself
        raise LateenError(
            f"the PTB tokenizer cannot run: {reason(error)}",
            f"Install {_PACKAGE} where you may write.",
        ) from error
    log.debug("%s", said.getvalue())
    words = {name: found.get(str(at), []) for at, name in enumerate(texts)}
    if any(len(words[name]) != len(some) for name, some in texts.items()):
        raise LateenError(
            "the PTB tokenizer did not give back a line for each caption",
            "See that `java -version` works, or take Java off the PATH: words are then found "
            "without it.",
        )
    return words
