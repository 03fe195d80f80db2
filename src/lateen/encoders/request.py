"""An encoder that is asked for, resolved as far as its name and its files' place tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from lateen.device import resolve_device, resolve_precision, weights_dtype
from lateen.encoders.base import EncoderInfo, EncoderOptions, Modality
from lateen.encoders.gguf import gguf_encoder, gguf_hash, gguf_tokenizer
from lateen.encoders.other_python import OtherPython
from lateen.encoders.resolve import check_gguf, resolve
from lateen.encoders.specs import EncoderSpec, find_copy
from lateen.encoders.weights import (
    load_pretrained,
    load_untrained,
    quiet_transformers,
    tensors_hash,
    warn_of_unused_code,
    weights_hash,
)
from lateen.errors import EncoderError
from lateen.files import read_json


@dataclass(frozen=True)
class Request:
    """What the caller asked for, resolved as far as the name alone allows."""

    name: str
    folder: Path
    gguf: Path | None
    revision: str | None
    spec: EncoderSpec
    modality: Modality | None
    pooling: str | None
    layer: int | None
    prompt: str | None
    max_tokens: int | None
    precision: str
    device: torch.device
    remote: bool
    untrained: bool
    load: dict[str, Any]
    there: OtherPython | None = None  # the environment that it runs in, if that is not this one

    def info(
        self, modality: Modality, pooling: str, weights: str, processing: dict[str, Any]
    ) -> EncoderInfo:
        """What describes the encoder; its dim is not known yet."""
        return EncoderInfo(
            id=self.name, modality=modality, dim=0, pooling=pooling, layer=self.layer,
            weights=weights, revision=self.revision, preprocessing=processing,
            precision=self.precision, load=self.load,
        )  # fmt: skip

    def pretrained(
        self, folder: Path, config: Mapping[str, Any] = MappingProxyType({})
    ) -> tuple[Any, bool]:
        """The model in ``folder``, with values of ``config`` in place of its configuration's own,
        and whether its pooler is trained."""
        dtype, remote = weights_dtype(self.device, self.precision), self.remote
        if self.gguf is not None:
            return gguf_encoder(self.gguf, dtype, untrained=self.untrained)
        if self.untrained:
            model = load_untrained(folder, dtype=dtype, trust_remote_code=remote, config=config)
            return model, True
        return load_pretrained(folder, dtype=dtype, trust_remote_code=remote, config=config)

    def weights(self, folder: Path, model: Any) -> str:
        """Content key of the weights that ``model`` has."""
        if self.untrained:
            return tensors_hash(model)
        return weights_hash(folder) if self.gguf is None else gguf_hash(self.gguf)

    def tokenizer(self, folder: Path) -> tuple[Any, list[Path]]:
        """The tokenizer in ``folder``, and the files that it is made of."""
        from transformers import AutoTokenizer

        if self.gguf is not None:
            return gguf_tokenizer(self.gguf), [self.gguf]
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=self.remote)
        return tokenizer, tokenizer_files(folder)


def tokenizer_files(folder: Path) -> list[Path]:
    """What a folder's tokenizer is made of."""
    return sorted(folder.glob("*token*.json")) + sorted(folder.glob("vocab*"))


def find_request(
    name: str, modality: Modality | None, options: EncoderOptions, there: OtherPython | None = None
) -> Request:
    """Find the encoder's files and settle what its name alone decides.

    Args:
        name: as for :func:`~lateen.encoders.load_encoder`, like the next two.
        modality: which, of a model with a tower for each.
        options: how it is loaded.
        there: the environment that it runs in, if that is not this one.
    """
    device = resolve_device(options.device) if there is None else torch.device(there.device)
    remote = options.trust_remote_code
    bfloat16 = None if there is None else there.bfloat16
    found = resolve(name, options.revision)
    file = found.gguf
    known = found.spec or (None if file else find_copy(config_file(found.folder)))
    spec = known or EncoderSpec(name, None)
    local = file is not None or found.origin == "local folder"
    again = {
        **options.recorded(), "name": str(found.place) if local else name,
        "revision": found.revision, "trust_remote_code": remote or None,
    }  # fmt: skip
    if file is not None:
        check_gguf(file, "text")
    if spec.trust_remote_code and not remote:
        raise EncoderError(
            f"{name} brings its own model code, which runs on your machine",
            "Read it on the hub, then pass trust_remote_code.",
        )
    if not remote and file is None:
        warn_of_unused_code(name, found.folder)
    return Request(
        name, found.folder, file, found.revision, spec, modality or spec.modality,
        options.pooling or spec.pooling, options.layer,
        options.prompt if options.prompt is not None else spec.prompt,
        options.max_tokens or spec.max_tokens,
        resolve_precision(options.precision, device, bfloat16), device, remote, options.untrained,
        {k: v for k, v in again.items() if v is not None}, there,
    )  # fmt: skip


def config_file(folder: Path) -> dict[str, Any]:
    """The config.json of a folder; empty if it has none of its own."""
    file = folder / "config.json"
    config = read_json(file) if file.is_file() else {}
    if not isinstance(config, dict):
        raise EncoderError(f"{file} is not the configuration of a model", "Download it again.")
    return config
