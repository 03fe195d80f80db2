"""The text side of a model as one ONNX graph, with which a query is embedded without torch.

Loading torch, transformers and a model takes three seconds, and a search ten milliseconds. The
graph is made once for a model, beside its tokenizer, in lateen's cache folder, and used only if it
gives the embeddings that the model gives.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lateen.errors import LateenError, reason
from lateen.files import atomic_folder, cache_folder, read_json, write_json
from lateen.progress import log

if TYPE_CHECKING:
    from lateen.model import AlignedModel

_GRAPH, _TOKENIZER, _SETTINGS, _WHY_NOT = "text.onnx", "tokenizer.json", "tower.json", "why.json"
_FORMAT = 1
_IDS, _MASK, _OUT = "input_ids", "attention_mask", "text_embedding"
_NEEDED = ("onnx", "onnxruntime", "onnxscript")
_ALIKE = 0.999  # cosine with the model's own, which may compute in bfloat16
_PROBES = ("a dog", "", "Zwei Kinder spielen am Strand – 海辺", "one two three four " * 40)
Array = np.ndarray[Any, np.dtype[np.float32]]


def tower_folder(model_key: str) -> Path:
    """Where the text tower of a model is kept, by the model's content key."""
    return cache_folder() / "towers" / model_key[:24]


@dataclass(frozen=True)
class TextTower:
    """A model's text side, ready to embed.

    Attributes:
        folder: with the graph, the tokenizer and the settings.
    """

    folder: Path

    @classmethod
    def open(cls, model_key: str) -> TextTower | None:
        """The tower of a model; ``None`` if none was made, or onnxruntime is not installed."""
        folder = tower_folder(model_key)
        try:
            known = read_json(folder / _SETTINGS).get("format") == _FORMAT
        except (OSError, LateenError, AttributeError):
            return None
        return cls(folder) if known and importlib.util.find_spec("onnxruntime") else None

    @classmethod
    def make(cls, model: AlignedModel, model_key: str) -> TextTower | None:
        """Make the tower of a model, unless it is there; ``None`` where there can be none.

        That is where the packages of ``lateen[onnx]`` are not installed, where the text encoder has
        no fast tokenizer or no graph can be made of it, and where the graph gives other embeddings.
        What cannot be made is not tried again.
        """
        folder = tower_folder(model_key)
        if tower := cls.open(model_key):
            return tower
        if any(importlib.util.find_spec(name) is None for name in _NEEDED):
            log.info("queries need torch: pip install 'lateen[onnx]' makes searches start sooner")
            return None
        if (folder / _WHY_NOT).is_file():
            return None
        try:
            with atomic_folder(folder) as made:
                _export(model, made)
                cls(made)._check(model)
            return cls(folder)
        except Exception as error:  # noqa: BLE001 - whatever an encoder's own code raises
            why = reason(error)
            log.info("no text tower of this model in ONNX (%s): queries are embedded by torch", why)
            write_json(folder / _WHY_NOT, {"why": why})
            return None

    def texts(self, texts: Sequence[str]) -> Array:
        """Embeddings ``[n, dim]``, L2-normalised."""
        rows = self._token_ids(texts)
        settings = self._settings
        length = settings["pad_to"] or max(map(len, rows))
        ids = np.full((len(rows), length), settings["pad"], np.int64)
        mask = np.zeros((len(rows), length), np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row)], mask[place, : len(row)] = row, 1
        inputs = {_IDS: ids, _MASK: mask}
        taken = {each.name: inputs[each.name] for each in self._session.get_inputs()}
        [values] = self._session.run([_OUT], taken)
        return np.asarray(values, np.float32)

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids, as :meth:`lateen.encoders.text.TextEncoder.prepare` makes them."""
        settings = self._settings
        prompted = [settings["prompt"] + text for text in texts]
        if settings["lower"]:
            prompted = [text.lower() for text in prompted]
        end = settings["end"]
        encoded = self._tokenizer.encode_batch(prompted)
        return [[*each.ids, *end] or [settings["nothing"]] for each in encoded]

    @cached_property
    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = read_json(self.folder / _SETTINGS)
        return settings

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.folder / _TOKENIZER))
        tokenizer.no_padding()
        room = self._settings["max_tokens"] - len(self._settings["end"])
        tokenizer.enable_truncation(room)
        return tokenizer

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(
            str(self.folder / _GRAPH), options, providers=["CPUExecutionProvider"]
        )

    def _check(self, model: AlignedModel) -> None:
        """See that it embeds as the model does.

        Raises:
            ValueError: it does not.
        """
        theirs = model.encode_text(list(_PROBES)).numpy()
        cosine = (self.texts(_PROBES) * theirs).sum(1)
        if not (cosine > _ALIKE).all():
            raise ValueError(f"its embeddings differ: cosine {cosine.min():.4f}")


@contextlib.contextmanager
def _unsaid() -> Iterator[None]:
    """Without what the exporter says of packages that are not needed, and of names of axes."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _export(model: AlignedModel, folder: Path) -> None:
    """Write the graph, the tokenizer and the settings.

    Raises:
        ValueError: the text encoder does not run as a plain transformers model with a fast
            tokenizer, or has a prompt that goes on after the text.
    """
    import torch

    from lateen.encoders.text import PLACE, TextEncoder

    encoder = model.text_encoder
    if not isinstance(encoder, TextEncoder):
        raise ValueError(f"{type(encoder).__name__} is no plain transformers model")
    settings, tokenizer = encoder.info.preprocessing, encoder.tokenizer
    prompt = settings.get("prompt") or ""
    if not tokenizer.is_fast or PLACE in prompt:
        raise ValueError("it has no fast tokenizer, or a prompt around the text")

    network, heads = encoder.network, model.heads

    class Tower(torch.nn.Module):
        """Token ids and mask to embeddings."""

        def __init__(self) -> None:
            super().__init__()
            self.network, self.heads = network, heads

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.heads.embed_text(self.network(ids, mask))

    longest = settings["max_tokens"]
    batch = torch.export.Dim("batch")
    fixed = settings.get("pad_to")
    shape = {0: batch} if fixed else {0: batch, 1: torch.export.Dim("length", max=longest)}
    example = torch.full((2, fixed or min(7, longest)), encoder.pad_token, dtype=torch.long)
    tower = copy.deepcopy(Tower().eval()).cpu()
    with torch.no_grad(), _unsaid():
        torch.onnx.export(
            tower, (example, torch.ones_like(example)), str(folder / _GRAPH),
            input_names=[_IDS, _MASK], output_names=[_OUT], dynamic_shapes=(shape, shape),
            dynamo=True, verbose=False,
        )  # fmt: skip
    (folder / _TOKENIZER).write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
    about = {
        "format": _FORMAT, "prompt": prompt, "lower": bool(settings.get("lower")),
        "end": [tokenizer.eos_token_id] if settings.get("append_eos") else [],
        "max_tokens": longest, "pad_to": fixed, "pad": encoder.pad_token,
        "nothing": encoder.no_text,
    }  # fmt: skip
    (folder / _SETTINGS).write_text(json.dumps(about), encoding="utf-8")
