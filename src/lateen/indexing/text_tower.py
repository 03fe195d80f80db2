"""The text side of a model as one ONNX graph, with which a query is embedded without torch.

Loading torch, transformers and a model takes three seconds, and a search ten milliseconds. The
graph is made once for a model, beside its tokenizer, in lateen's cache folder, and used only if it
gives the embeddings that the model gives.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lateen.errors import LateenError, reason
from lateen.files import atomic_folder, read_json, write_json
from lateen.hardware import cache_folder
from lateen.progress import log

if TYPE_CHECKING:
    from lateen.model import AlignedModel

_GRAPH, _TOKENIZER = "text.onnx", "tokenizer.json"
_SETTINGS, _WHY_NOT = "tower.json", "why.json"
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
        from lateen.model.graphs import write_text_graph  # which needs torch

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
                inputs = write_text_graph(model, made, _GRAPH)
                write_json(made / _SETTINGS, {"format": _FORMAT, **inputs.as_dict()})
                cls(made)._check(model)
            return cls(folder)
        except Exception as error:  # noqa: BLE001 - whatever an encoder's own code raises
            why = reason(error)
            log.info("no text tower of this model in ONNX (%s): queries are embedded by torch", why)
            with contextlib.suppress(OSError, LateenError):  # where nothing can be kept
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
