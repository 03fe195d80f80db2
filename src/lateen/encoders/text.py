"""Any Hugging Face text model as a frozen text encoder, or as one that is trained (LiT)."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lateen.data.fingerprint import file_hashes
from lateen.device import forward_pass
from lateen.encoders.base import Encoder, EncoderInfo, hidden_layers, view_info
from lateen.encoders.faults import probing
from lateen.encoders.resolve import is_gguf
from lateen.encoders.specs import TextNeeds
from lateen.errors import EncoderError

POOLINGS = ("mean", "first", "last", "pooler")
LONGEST = 8192  # a limit for tokenizers that state none (transformers then says 1e30)
PADDING = -1  # what stands after the last token of a row
PLACE = "{}"  # of the text, in a prompt that goes on after it
# Settings of a text encoder that decide its token ids.
_TOKENISING = ("max_tokens", "prompt", "tokenizer", "lower", "append_eos")


@dataclass(frozen=True)
class TextFacts:
    """What of a text model and its tokenizer decides an encoder's settings.

    Attributes:
        model_type: the architecture's name.
        positions: how many tokens it has positions for.
        longest: the tokenizer's own limit, in tokens.
        keeps_case: whether the tokenizer tells upper case from lower.
        lacks_end: whether it does not put the end-of-sequence token, which it has, after a text.
    """

    model_type: str
    positions: int
    longest: int
    keeps_case: bool
    lacks_end: bool

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> TextFacts:
        """Those of a transformers text model."""
        upper, lower = tokenizer([string.ascii_uppercase, string.ascii_lowercase])["input_ids"]
        end = tokenizer.eos_token_id
        return cls(
            model.config.model_type, count_positions(model), tokenizer.model_max_length,
            upper != lower, end is not None and lower[-1:] != [end],
        )  # fmt: skip

    def settings(
        self, needs: TextNeeds, files: Sequence[Path], *, prompt: str | None,
        max_tokens: int | None, normalize: bool,
    ) -> dict[str, Any]:  # fmt: skip
        """The ``preprocessing`` of an encoder: what :class:`TextEncoder` does to texts.

        Args:
            needs: what the network must get; what the tokenizer sees to by itself is left out.
            files: that the tokenizer is made of.
            prompt: before every text, or around it.
            max_tokens: the limit that is asked for.
            normalize: whether features are L2-normalised.
        """
        missing = {
            "lower": needs.lower and self.keeps_case,
            "append_eos": needs.append_eos and self.lacks_end,
        }
        return {
            "max_tokens": int(min(max_tokens or LONGEST, self.longest, self.positions)),
            "prompt": prompt, "normalize": normalize,
            "pad_to": self.positions if needs.full_length else None,
            "tokenizer": file_hashes(files),
            **{name: True for name, wanted in missing.items() if wanted},
        }  # fmt: skip


def count_positions(model: Any) -> int:
    """How many tokens a transformers text model has positions for."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    # RoBERTa and its kin count positions from padding_idx + 1.
    if isinstance(table, nn.Embedding) and table.padding_idx is not None:
        return table.num_embeddings - table.padding_idx - 1
    return getattr(model.config, "max_position_embeddings", None) or LONGEST


class TextNetwork(nn.Module):
    """A transformers text model and its pooling: what an encoder computes from token ids.

    Gradients flow where they are enabled.

    Args:
        model: takes ``input_ids`` and ``attention_mask``.
        info: the encoder's; its pooling, layer and preprocessing count.
        project: for ``projection`` pooling: tokens and mask to the embedding of a dual tower.

    Attributes:
        model: the transformers model.
        project: as given.
    """

    def __init__(self, model: Any, info: EncoderInfo, project: Any = None) -> None:
        super().__init__()
        self.model = model
        self.project = project
        self._info = info

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Token ids and mask ``[n, length]``, padded on the right, to features ``[n, dim]``,
        float32."""
        return self.pooled(self.run(ids, mask, hidden=self._info.layer is not None), mask)

    def views(
        self, networks: Sequence[TextNetwork], ids: torch.Tensor, mask: torch.Tensor
    ) -> list[torch.Tensor]:
        """Features ``[n, dim]``, float32, of each of ``networks``, which share this one's model, in
        one forward pass.

        Args:
            networks: this one may be among them.
            ids: ``[n, length]``, padded on the right.
            mask: 1 where there is a token.
        """
        # A projection has a forward pass of its own; all other views share one.
        together = [network for network in networks if not network.projects]
        hidden = any(network._info.layer is not None for network in networks)
        shared = together[0].run(ids, mask, hidden=hidden) if together else None
        return [
            network.pooled(
                network.run(ids, mask, hidden=False) if network.projects else shared, mask
            )
            for network in networks
        ]

    def run(self, ids: torch.Tensor, mask: torch.Tensor, *, hidden: bool) -> Any:
        """The model's output for token ids and mask ``[n, length]``.

        Args:
            ids: padded on the right.
            mask: 1 where there is a token.
            hidden: with the hidden states of all layers.
        """
        # Attention without a mask takes the fast path; batches of one length need none. A tower
        # trained at a fixed length was trained to attend to its padding, too. A graph that is
        # exported must do for every mask.
        fixed = self._info.preprocessing.get("pad_to") is not None
        full = not torch.compiler.is_exporting() and bool(mask.all())
        needed = None if fixed or full else mask
        if self.projects:
            return torch.as_tensor(self.project(ids, needed))
        return self.model(input_ids=ids, attention_mask=needed, output_hidden_states=hidden)

    @property
    def projects(self) -> bool:
        """Whether the features are those of a dual tower's own projection."""
        return self._info.pooling == "projection" and self.project is not None

    def pooled(self, output: Any, mask: torch.Tensor) -> torch.Tensor:
        """What :meth:`run` gives, pooled: features ``[n, dim]``, float32."""
        features = (output if self.projects else self._features(output, mask)).float()
        if self._info.preprocessing.get("normalize"):
            features = nn.functional.normalize(features, dim=-1)
        return features

    def _features(self, output: Any, mask: torch.Tensor) -> torch.Tensor:
        if self._info.pooling == "pooler":
            if getattr(output, "pooler_output", None) is None:
                raise EncoderError(
                    f"{self._info.id} has no trained pooler",
                    "Use pooling mean, first or last.",
                )
            return torch.as_tensor(output.pooler_output)
        return self._pool(self._tokens(output), mask)

    def _tokens(self, output: Any) -> torch.Tensor:
        layer = self._info.layer
        if layer is None:
            return torch.as_tensor(output.last_hidden_state)
        last = len(output.hidden_states) - 1
        if not -last - 1 <= layer <= last:
            raise EncoderError(
                f"{self._info.id} has hidden layers 0 (embeddings) to {last}, not {layer}",
                "Choose a layer in that range.",
            )
        return torch.as_tensor(output.hidden_states[layer])

    def _pool(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        tokens = tokens.float()
        if self._info.pooling == "first":
            return tokens[:, 0]
        if self._info.pooling == "last":
            # Not len(tokens), which an exported graph would keep as it is here.
            rows = torch.arange(tokens.shape[0], device=tokens.device)
            return tokens[rows, mask.sum(1) - 1]
        weights = mask[..., None].to(tokens.dtype)
        return (tokens * weights).sum(1) / weights.sum(1)


class TextEncoder:
    """A frozen transformers text model with one pooling.

    Args:
        model: the network, in evaluation mode; it takes ``input_ids`` and ``attention_mask``.
        tokenizer: its tokenizer.
        info: its description; ``dim`` may be 0, it is filled in here. ``preprocessing`` holds
            ``max_tokens``, ``prompt`` (before every text, or around it where it has ``{}``),
            ``normalize`` and ``pad_to`` (a fixed length, for towers trained with one), and where
            the tokenizer does not see to it, ``lower`` (texts are put in lower case) and
            ``append_eos``.
        device: where the forward pass runs.
        pooler_trained: whether the checkpoint had pooler weights.
        project: for ``projection`` pooling: tokens and mask to the embedding of a dual tower.

    Attributes:
        info: its description.
        network: what computes features from tokens.
        tokenizer: as given.
        pad_token: the id that rows are padded with.
        no_text: the id that stands for a text without any token.

    Raises:
        EncoderError: the model has no such pooling or layer, the choices are listed; or the prompt
            leaves no room for a text.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        info: EncoderInfo,
        device: torch.device,
        *,
        pooler_trained: bool = True,
        project: Any = None,
    ) -> None:
        self.network = TextNetwork(model.to(device), info, project)
        self.tokenizer = tokenizer
        self._device = device
        self._pooler_trained = pooler_trained
        self._settings = dict(info.preprocessing)
        # Nothing sees what padding is: it is masked, or on the right of what sees to the left.
        self.pad_token = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        special = (tokenizer.bos_token_id, tokenizer.eos_token_id, self.pad_token)
        self.no_text = next(token for token in special if token is not None)
        self.info = info
        valid = [p for p in POOLINGS if pooler_trained or p != "pooler"]
        valid += ["projection"] if project is not None else []
        if info.pooling not in valid:
            raise EncoderError(
                f"{info.id} has no pooling {info.pooling!r}", f"Choose one of: {', '.join(valid)}."
            )
        if info.layer is not None and info.pooling in ("pooler", "projection"):
            raise EncoderError(
                f"pooling {info.pooling!r} works on the last layer, not on layer {info.layer}",
                "Use pooling mean, first or last with a layer.",
            )
        with probing(info.id):
            dim = self.encode(self.prepare(["probe"])).shape[1]
        self.info = EncoderInfo(**{**info.as_dict(), "dim": dim})

    def prepare(self, items: Sequence[str]) -> list[list[int]]:
        """Texts to token ids, the prompt before or around each, cut at ``max_tokens``.

        What follows a text in the prompt stays whole: the text is cut. A text without any token,
        as tokenizers of language models make of an empty one, is the one that begins (or ends) all.
        """
        prompt = self._settings.get("prompt") or ""
        end = [self.tokenizer.eos_token_id] if self._settings.get("append_eos") else []
        if PLACE in prompt:
            tokens = [self._around(prompt, text, end) for text in items]
        else:
            tokens = self._token_ids([prompt + text for text in items], end)
        return [row or [self.no_text] for row in tokens]

    def _token_ids(self, texts: Sequence[str], end: list[int]) -> list[list[int]]:
        """Token ids of texts, cut, and ``end`` after each."""
        if self._settings.get("lower"):
            texts = [text.lower() for text in texts]
        tokens: list[list[int]] = self.tokenizer(
            list(texts), truncation=True, max_length=self._settings["max_tokens"] - len(end)
        )["input_ids"]
        return [row + end for row in tokens] if end else tokens

    def _around(self, prompt: str, text: str, end: list[int]) -> list[int]:
        """Token ids of a text in the place that a prompt has for it.

        Raises:
            EncoderError: the prompt alone is too long.
        """
        lower, room = self._settings.get("lower"), self._settings["max_tokens"] - len(end)
        while True:
            whole = prompt.replace(PLACE, text)
            [row] = self.tokenizer([whole.lower() if lower else whole])["input_ids"]
            over = len(row) - room
            if over <= 0:
                return [*row, *end]
            if not text:
                raise EncoderError(
                    f"the prompt has {len(row)} tokens by itself, and max_tokens is {room}",
                    "Give a shorter prompt, or more max_tokens.",
                )
            text = text[:-over]  # a token is one character or more

    def encode(self, prepared: Sequence[list[int]]) -> torch.Tensor:
        """Pooled features ``[n, dim]``, float32."""
        ids, mask = self.pad_batch(prepared)
        with forward_pass(self._device, self.info.precision):
            features: torch.Tensor = self.network(ids, mask)
        return features.cpu()

    def view(self, pooling: str | None = None, layer: int | None = None) -> TextEncoder:
        """The same network with another pooling and layer; see
        :class:`~lateen.encoders.ViewedEncoder`."""
        info = view_info(self.info, pooling, layer)
        if pooling is not None or layer is not None:
            # What a sentence-transformers model does at its end is not done to other features.
            info = replace(info, preprocessing={**info.preprocessing, "normalize": False})
        return TextEncoder(
            self.network.model, self.tokenizer, info, self._device,
            pooler_trained=self._pooler_trained, project=self.network.project,
        )  # fmt: skip

    def encode_views(self, prepared: Sequence[Any], views: Sequence[Encoder]) -> list[torch.Tensor]:
        """Pooled features ``[n, dim]`` of every view, float32, from one forward pass."""
        networks = [view.network for view in views if isinstance(view, TextEncoder)]
        ids, mask = self.pad_batch(prepared)
        with forward_pass(self._device, self.info.precision):
            features = self.network.views(networks, ids, mask)
        return [each.cpu() for each in features]

    def layers(self) -> list[int]:
        """The hidden layers that there are; see :class:`~lateen.encoders.LayeredEncoder`."""
        ids, mask = self.pad_batch(self.prepare(["probe"]))
        with forward_pass(self._device, self.info.precision):
            return hidden_layers(self.network.model(ids, mask, output_hidden_states=True))

    @property
    def shared(self) -> tuple[int, ...]:
        """What its views have in common; see :class:`~lateen.encoders.LayeredEncoder`."""
        return id(self.network.model), id(self.tokenizer)

    def pad_batch(self, prepared: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Right-pad to the longest (or the fixed) length: ids and mask, both ``[n, length]``."""
        length = self._settings.get("pad_to") or max(map(len, prepared))
        ids = torch.full((len(prepared), length), self.pad_token, dtype=torch.long)
        mask = torch.zeros(len(prepared), length, dtype=torch.long)
        for row, tokens in enumerate(prepared):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return ids.to(self._device), mask.to(self._device)


class TokenEncoder:
    """Texts to rows of token ids, so that a store can hold what a text encoder is trained on.

    Of the encoder its tokenizer, its prompt and its limit decide the rows; its weights do not.

    Args:
        encoder: gives them.

    Attributes:
        info: ``dim`` is the encoder's ``max_tokens``.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        known = encoder.info.preprocessing
        processing = {key: known[key] for key in _TOKENISING if key in known}
        self.info = replace(
            encoder.info, dim=known["max_tokens"], pooling="tokens", layer=None, weights="none",
            precision="float32", preprocessing=processing,
        )  # fmt: skip
        self._encoder = encoder

    def prepare(self, items: Sequence[str]) -> list[list[int]]:
        """Texts to token ids, as the encoder prepares them."""
        return self._encoder.prepare(items)

    def encode(self, prepared: Sequence[list[int]]) -> torch.Tensor:
        """Token ids ``[n, max_tokens]``, int32, padded with −1 after the last."""
        rows = torch.full((len(prepared), self.info.dim), PADDING, dtype=torch.int32)
        for row, tokens in zip(rows, prepared, strict=True):
            row[: len(tokens)] = torch.tensor(tokens, dtype=torch.int32)
        return rows


def trainable(encoder: Encoder) -> TextEncoder:
    """``encoder``, if it can be trained and saved as a model of its own.

    Raises:
        EncoderError: it runs in a library or in code of its own, or is part of a larger model.
    """
    remedy = "Leave text.train out, or train an encoder that is one transformers model with one "
    remedy += "pooling, such as sentence-transformers/all-MiniLM-L6-v2."
    if not isinstance(encoder, TextEncoder):
        raise EncoderError(
            f"{encoder.info.id} cannot be trained: it does not run as a plain transformers model",
            remedy,
        )
    if is_gguf(Path(str(encoder.info.load.get("name", "")))):
        raise EncoderError(
            f"{encoder.info.id} cannot be trained: a GGUF file is not written again", remedy
        )
    from transformers import MODEL_MAPPING

    # What AutoModel would load again; of an encoder-decoder or a dual tower that is the whole.
    model = encoder.network.model
    whole = MODEL_MAPPING.get(type(model.config), type(model))
    if encoder.network.project is not None or not isinstance(model, whole):
        raise EncoderError(
            f"{encoder.info.id} cannot be trained: its text encoder is a part of a larger model",
            remedy,
        )
    return encoder
