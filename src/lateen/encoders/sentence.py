"""sentence-transformers models, with the pooling they bring.

A model that is a transformer, one pooling and perhaps a normalisation runs as a plain
:class:`~lateen.encoders.text.TextEncoder`, which is faster. Anything else (dense layers, code of
its own) runs inside the sentence-transformers library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lateen.device import forward_pass, weights_dtype
from lateen.encoders.base import EncoderInfo
from lateen.encoders.faults import probing
from lateen.encoders.weights import quiet_transformers, without_cache
from lateen.errors import EncoderError, MissingExtraError
from lateen.files import read_json

MODULES = "modules.json"
_POOLING_MODES = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "first",
    "pooling_mode_lasttoken": "last",
}
_POOLING_NAMES = {"mean": "mean", "cls": "first", "lasttoken": "last"}


@dataclass(frozen=True)
class SentenceLayout:
    """What a sentence-transformers folder says about itself.

    Attributes:
        transformer: the folder of the transformer module.
        pooling: ``mean``, ``first`` or ``last``; ``None`` if it is not that simple.
        normalize: whether features are L2-normalised.
        max_tokens: its text limit, if it sets one.
        prompt: what it puts before every text, if it does.
        pools_prompt: whether that counts in the pooling.
    """

    transformer: Path
    pooling: str | None
    normalize: bool
    max_tokens: int | None
    prompt: str | None
    pools_prompt: bool


def read_layout(folder: Path) -> SentenceLayout:
    """Read ``modules.json`` and the files it names.

    Raises:
        EncoderError: the files are not as sentence-transformers writes them.
    """
    try:
        modules = read_json(folder / MODULES)
        kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
        transformer = folder / modules[0]["path"]
        simple = kinds[:2] == ["Transformer", "Pooling"] and kinds[2:] in ([], ["Normalize"])
        pools = read_json(folder / modules[1]["path"] / "config.json") if simple else {}
    except (KeyError, IndexError, TypeError, FileNotFoundError) as error:
        raise EncoderError(
            f"{folder} is not a whole sentence-transformers model ({error!r})", "Download it again."
        ) from error
    limits = transformer / "sentence_bert_config.json"
    max_tokens = read_json(limits).get("max_seq_length") if limits.is_file() else None
    return SentenceLayout(
        transformer, pooling_of(pools), "Normalize" in kinds, max_tokens, _prompt(folder),
        pools.get("include_prompt", True),
    )  # fmt: skip


def _prompt(folder: Path) -> str | None:
    file = folder / "config_sentence_transformers.json"
    config = read_json(file) if file.is_file() else {}
    return (config.get("prompts") or {}).get(config.get("default_prompt_name")) or None


def pooling_of(config: dict[str, Any]) -> str | None:
    """What the config.json of a pooling module says; ``None`` if it is not one of ours."""
    if "pooling_mode" in config:  # the form that newer releases write
        return _POOLING_NAMES.get(str(config["pooling_mode"]))
    on = [name for name, value in config.items() if name.startswith("pooling_mode_") and value]
    return _POOLING_MODES.get(on[0]) if len(on) == 1 else None


class SentenceEncoder:
    """A model run by the sentence-transformers library itself.

    ``prepare`` leaves texts as they are: the library tokenises them, and a text's length in
    characters stands for its cost.

    Args:
        folder: as sentence-transformers saves it.
        info: its description; ``dim`` may be 0, it is filled in here. ``preprocessing`` holds
            ``max_tokens``, ``prompt``, ``append_eos`` and ``padding_side``. Without a prompt the
            model has its own, if it brings one.
        device: where the forward pass runs.
        trust_remote_code: run the model code in ``folder``.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        EncoderError: the model fails on a first text.
    """

    def __init__(
        self, folder: Path, info: EncoderInfo, device: torch.device, *, trust_remote_code: bool
    ) -> None:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtraError(
                "sentence_transformers", "text", f"the model {info.id}"
            ) from error
        self._device = device
        dtype = weights_dtype(device, info.precision)
        with quiet_transformers():
            self._model = SentenceTransformer(
                str(folder), device=str(device), trust_remote_code=trust_remote_code,
                model_kwargs={"dtype": dtype},
            ).eval()  # fmt: skip
        without_cache(self._model)
        settings = info.preprocessing
        if settings.get("max_tokens") is not None:
            self._model.max_seq_length = settings["max_tokens"]
        if settings.get("padding_side") is not None:
            self._model.tokenizer.padding_side = settings["padding_side"]
        self._after = self._model.tokenizer.eos_token if settings.get("append_eos") else ""
        self.info = info
        with probing(info.id):
            dim = self.encode(self.prepare(["probe"])).shape[1]
        self.info = EncoderInfo(**{**info.as_dict(), "dim": dim})

    def prepare(self, items: Sequence[str]) -> list[str]:
        """The texts and, where the model wants it, EOS after each."""
        return [text + self._after for text in items]

    def encode(self, prepared: Sequence[str]) -> torch.Tensor:
        """Features ``[n, dim]``, float32."""
        with forward_pass(self._device, self.info.precision):
            features = self._model.encode(
                list(prepared), batch_size=len(prepared), convert_to_tensor=True,
                show_progress_bar=False, prompt=self.info.preprocessing.get("prompt"),
            )  # fmt: skip
        return torch.as_tensor(features).float().cpu()
