"""Text encoders behind a server, named ``openai+http://HOST:PORT/v1#MODEL``.

It may be anything that speaks OpenAI's embeddings API, as vLLM, TEI, infinity and llama.cpp do.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from lateen.encoders.base import EncoderInfo, EncoderOptions
from lateen.encoders.embeddings_api import EmbeddingsApi
from lateen.encoders.openai_server import Refused, check_address, parse_address
from lateen.errors import EncoderError, LateenError, UsageError
from lateen.files import content_key, folder_lock, read_json, write_json
from lateen.hardware import cache_folder
from lateen.progress import log

if TYPE_CHECKING:
    import torch

_REQUEST_TEXTS = 32  # in one request: as many as TEI takes where nothing else is set
_REQUEST_CHARACTERS = 16384  # likewise, so that long texts are divided among requests, too
_AT_ONCE = 16  # requests in flight
_CHECKED_FROM = 256  # texts of a call, after which it is seen that the model is still the same
# Sentences of several kinds, so that models differ in how alike they find them.
_KNOWN = (
    "A dog runs along a beach.",
    "Two puppies are playing in the sand.",
    "A man in a red jacket climbs a steep rock.",
    "The committee postponed its decision on interest rates.",
    "Boil the potatoes in salted water for twenty minutes.",
    "A crowd watches a football match in the rain.",
    "def add(a, b): return a + b",
    "Ein Kind malt ein blaues Haus.",
)
_STEP = 0.05  # of the cosines in a fingerprint
_SAME = 0.005  # what cosines of one model may differ by: above rounding to bfloat16
_CHANGED = 0.02  # what they must differ by where a run is to be stopped
_UNIT = 0.01  # how far from 1 the norm of a normalised vector may be


class ServerEncoder:
    """A text encoder behind a server.

    Its ``weights`` are a fingerprint of what the model does, as nothing else can be known of it:
    a key of the model's name, the dim and the cosines between known sentences, each of which is
    sent alone and rounded to 0.05. A cosine that lies where rounding goes either way would make two
    keys of one model, so that keys are also kept in lateen's cache folder with their cosines: what
    differs from those by less than 0.005 (another batch, bfloat16) gets the key that is there.
    A model that turns or mirrors all its vectors alike would not be told from the one before.

    A call that encodes 256 texts or more, or in which a text was refused, ends with asking for the
    known sentences again: nothing is given of a model that has changed under way.

    Args:
        name: ``openai+http://HOST:PORT/v1#MODEL``.
        prompt: put before every text, or around it where it has ``{}``.

    Raises:
        UsageError: the name has another form, or no model.
        EncoderError: the server cannot be reached, fails, or has no such model.
        MissingExtraError: the client is not installed.
    """

    batch = 64  # thousand characters: some dozens of requests
    versions: Mapping[str, str] = MappingProxyType({})
    where = "elsewhere"

    def __init__(self, name: str, prompt: str | None = None) -> None:
        check_address(name)
        self._api = EmbeddingsApi(parse_address(name))
        self._prompt = prompt or ""
        self._refused: dict[str, str] = {}
        vectors, weights = _identified(self._api)
        self._cosines = _cosines(vectors)
        norms = np.linalg.norm(vectors, axis=1)
        load = {"name": name, "prompt": prompt}
        self.info = EncoderInfo(
            id=name, modality="text", dim=vectors.shape[1], pooling="server", weights=weights,
            preprocessing={
                "prompt": prompt, "normalized": bool((abs(norms - 1) <= _UNIT).all()),
            },
            precision="server", load={k: v for k, v in load.items() if v is not None},
        )  # fmt: skip
        log.info("encoder %s: %d values, %s", name, self.info.dim, "L2-normalised"
                 if self.info.preprocessing["normalized"] else "not normalised")  # fmt: skip

    def prepare(self, items: Sequence[str]) -> list[str]:
        """The texts with their prompt; a text's characters stand for its cost."""
        from lateen.encoders.text import PLACE

        if PLACE in self._prompt:
            return [self._prompt.replace(PLACE, text) for text in items]
        return [self._prompt + text for text in items]

    def encode(self, prepared: Sequence[str]) -> torch.Tensor:
        """Features ``[n, dim]``, float32, in the order of the texts.

        Raises:
            EncoderError: the server refuses one of the texts, fails, or its model has changed.
        """
        features = self.encode_accepted(prepared)
        for text, finite in zip(prepared, features.isfinite().all(dim=1).tolist(), strict=True):
            if not finite:
                raise EncoderError(
                    f"{self.info.id} has no features for {text[:60]!r}: {self.refusal(text)}",
                    "Shorten the text, or leave it out.",
                )
        return features

    def encode_accepted(self, prepared: Sequence[str]) -> torch.Tensor:
        """As :meth:`encode`; the rows of texts that the server refuses are NaN."""
        import torch

        requests = [list(prepared[part]) for part in _requests(prepared)]
        rows: list[np.ndarray[Any, Any] | str] = []
        if len(requests) == 1:
            rows = self._request(requests[0])
        elif requests:
            with ThreadPoolExecutor(min(_AT_ONCE, len(requests))) as pool:
                waiting = [pool.submit(self._request, texts) for texts in requests]
                try:
                    for answered in waiting:
                        rows += answered.result()
                finally:
                    for each in waiting:
                        each.cancel()
        refused = {text: row for text, row in zip(prepared, rows, strict=True)
                   if isinstance(row, str)}  # fmt: skip
        if refused or len(prepared) >= _CHECKED_FROM:
            self._check_unchanged()
        self._refused |= refused
        none = np.full(self.info.dim, np.nan, np.float32)
        whole = [none if isinstance(row, str) else row for row in rows]
        return torch.from_numpy(np.stack(whole)) if whole else torch.empty(0, self.info.dim)

    def refusal(self, prepared: str) -> str:
        """Why a text has no features, in the words of the server; it is asked if that was not yet
        seen."""
        if prepared not in self._refused:
            [answer] = self._request([prepared])
            self._refused[prepared] = answer if isinstance(answer, str) else _NO_NUMBERS
        return self._refused[prepared]

    def _request(self, texts: Sequence[str]) -> list[np.ndarray[Any, Any] | str]:
        """Of each text its vector ``[dim]``, or why it has none: of texts that are refused together
        halves are sent, until it is clear which is at fault."""
        try:
            rows = self._api.vectors(texts)
        except Refused as error:
            if len(texts) == 1:
                return [f"the server refused the text ({error})"]
            half = len(texts) // 2
            return [*self._request(texts[:half]), *self._request(texts[half:])]
        self._check_dim(rows)
        return [_unusable(row) or row for row in rows]

    def _check_dim(self, rows: np.ndarray[Any, Any]) -> None:
        if rows.shape[1] != self.info.dim:
            raise EncoderError(
                f"{self.info.id} gave vectors of {rows.shape[1]} values, after {self.info.dim}",
                "Its model has changed: encode all again, with --overwrite.",
            )

    def _check_unchanged(self) -> None:
        """See that the server has the model that it had.

        Raises:
            EncoderError: it has not.
        """
        try:
            rows = self._api.vectors(_KNOWN)
        except Refused as error:
            raise EncoderError(
                f"{self.info.id} no longer takes what it took at first ({error})",
                "See which model it has now.",
            ) from error
        self._check_dim(rows)
        # Written so that NaN is a change.
        if not abs(_cosines(rows) - self._cosines).max() <= _CHANGED:
            raise EncoderError(
                f"the model behind {self.info.id} has changed under way",
                "Have the server serve the model from before, or encode all again, with "
                "--overwrite.",
            )


_NO_NUMBERS = "the server gave NaN or infinity"


def _unusable(row: np.ndarray[Any, Any]) -> str:
    """What is wrong with a vector; empty if nothing is."""
    if not np.isfinite(row).all():
        return _NO_NUMBERS
    return "" if row.any() else "the server gave a vector of zeros"


def server_encoder(name: str, options: EncoderOptions) -> ServerEncoder:
    """The encoder behind a server; the precision and the device are the server's own.

    Raises:
        UsageError: an option that the server decides; or as :class:`ServerEncoder` has it, like
            other errors.
    """
    decided = ("pooling", "layer", "max_tokens", "revision", "untrained")
    given = [option for option in decided if options.recorded()[option] is not None]
    if given:
        raise UsageError(
            f"{name} is behind a server, which decides its {', '.join(given)}",
            "Set it where the server is started, and leave it out here.",
        )
    return ServerEncoder(name, options.prompt)


def count_requests(texts: int, characters: int) -> int:
    """About how many requests are made for so many texts of so many characters together."""
    return math.ceil(max(texts / _REQUEST_TEXTS, characters / _REQUEST_CHARACTERS))


def _requests(texts: Sequence[str]) -> Iterator[slice]:
    """Runs of texts that make a request each."""
    start = characters = 0
    for stop, text in enumerate(texts):
        full = stop - start == _REQUEST_TEXTS or characters + len(text) > _REQUEST_CHARACTERS
        if full and stop > start:
            yield slice(start, stop)
            start, characters = stop, 0
        characters += len(text)
    if start < len(texts):
        yield slice(start, len(texts))


def _identified(api: EmbeddingsApi) -> tuple[np.ndarray[Any, Any], str]:
    """The vectors of the known sentences ``[n, dim]``, and the key of the model that gives them.

    Raises:
        EncoderError: there is no such model, or it gives no usable vectors.
    """
    model, served = api.address.model, api.models()
    api.settle_format(_KNOWN[0])
    try:
        rows = [api.vectors([text])[0] for text in _KNOWN]
    except Refused as error:
        raise api.unknown_model("embed", str(error)) from error
    api.warn_unlisted(served)
    faults = [fault for fault in map(_unusable, rows) if fault]
    if len({len(row) for row in rows}) > 1:
        faults.append("the vectors have different lengths")
    if faults:
        raise EncoderError(
            f"{api.address.url} does not embed a first sentence with {model!r}: {faults[0]}",
            "Look in its log, and take another model if it cannot be helped.",
        )
    vectors = np.stack(rows)
    return vectors, _kept_key(model, vectors)


def _cosines(vectors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Of every two rows, in a fixed order."""
    rows = vectors.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray((rows @ rows.T)[np.triu_indices(len(rows), 1)])


def _kept_key(model: str, vectors: np.ndarray[Any, Any]) -> str:
    """The key of a model: one that is kept with nearly the same cosines, else that of its rounded
    cosines, which is kept from now on."""
    cosines, dim = _cosines(vectors), vectors.shape[1]
    key = content_key(["server", model, dim, np.round(cosines / _STEP).astype(int).tolist()])
    folder = cache_folder() / "servers"
    # Without a cache the rounded cosines have to do.
    with contextlib.suppress(OSError, LateenError), folder_lock(folder, wait=True):
        file = folder / f"{content_key([model, dim])}.json"
        kept: list[dict[str, Any]] = read_json(file) if file.is_file() else []
        for each in kept:
            if abs(np.array(each["cosines"]) - cosines).max() <= _SAME:
                return str(each["key"])
        if all(each["key"] != key for each in kept):
            write_json(file, [*kept, {"key": key, "cosines": cosines.tolist()}])
    return key
