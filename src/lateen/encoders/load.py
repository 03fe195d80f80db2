"""From an encoder's name to a ready :class:`~lateen.encoders.base.Encoder`, or to its views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from lateen.encoders.base import Encoder, EncoderOptions, Modality, ViewedEncoder
from lateen.encoders.elsewhere import (
    check_elsewhere,
    config_there,
    images_there,
    library_there,
    texts_there,
)
from lateen.encoders.faults import explained, loading
from lateen.encoders.fused import FusedEncoder
from lateen.encoders.openai_server import is_server
from lateen.encoders.other_python import OtherPython
from lateen.encoders.own import from_factory, is_factory
from lateen.encoders.request import Request, config_file, find_request
from lateen.encoders.sentence import (
    MODULES,
    SentenceEncoder,
    SentenceLayout,
    pooling_of,
    read_layout,
)
from lateen.encoders.server import server_encoder
from lateen.encoders.specs import (
    TextNeeds,
    family_of,
    model_type_of,
)
from lateen.encoders.text import PLACE, POOLINGS, TextEncoder, TextFacts
from lateen.encoders.vision import VisionEncoder, describe_processing, load_processor, projected
from lateen.encoders.weights import (
    weights_hash,
)
from lateen.errors import EncoderError, choices
from lateen.files import read_json
from lateen.progress import log


def load_encoder(
    name: str,
    modality: Modality | None = None,
    *,
    pooling: str | None = None,
    layer: int | None = None,
    prompt: str | None = None,
    max_tokens: int | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    python: str | None = None,
    untrained: bool = False,
    parts: Sequence[Mapping[str, Any]] = (),
    weights: Sequence[float] | None = None,
) -> Encoder:
    """Load a frozen encoder.

    Args:
        name: a local folder, a GGUF file of a language model (or a folder with one), a hub id (or
            its last part, for those in the table), ``package.module:factory`` of your own,
            called without arguments, or ``openai+http://HOST/v1#MODEL`` for one behind a server.
        modality: ``image`` or ``text``; needed only for models with a tower for each.
        pooling: how tokens become one vector; the encoder's own where it is known.
        layer: hidden layer to take (0 = embeddings, as is, before any final norm); last by default.
        prompt: put before every text, or around it where the prompt has ``{}`` for the text.
        max_tokens: longer texts are cut; the encoder's own limit by default.
        precision: of the forward pass; ``auto`` is bfloat16 where the processor has it.
        device: ``auto``, ``cpu``, ``cuda``, ….
        revision: hub branch, tag or commit.
        trust_remote_code: allow a model repository to bring its own code.
        python: the Python of another environment that the encoder runs in, with the torch and
            transformers that are there: for models whose own code needs older ones.
        untrained: the same architecture with random weights, as a baseline.
        parts: for the name ``fused``: each part's arguments, before those given here.
        weights: for the name ``fused``: of each part.

    Raises:
        EncoderError: not found, no such pooling or layer, or not an encoder of that modality.
        MissingExtraError: what it needs is not installed.
        UsageError: an option for an encoder of your own, or one that a server decides; no such
            Python, or something that does not run in another one.
    """
    options = EncoderOptions(
        pooling=pooling, layer=layer, prompt=prompt, max_tokens=max_tokens, revision=revision,
        precision=precision, untrained=untrained, device=device,
        trust_remote_code=trust_remote_code, python=python, parts=parts, weights=weights,
    )  # fmt: skip
    return load_with(name, modality, options)


def load_with(name: str, modality: Modality | None, options: EncoderOptions) -> Encoder:
    """Load a frozen encoder, as :func:`load_encoder` does; errors are the same.

    Args:
        name: as there.
        modality: likewise.
        options: how.
    """
    if options.parts:
        parts = [_part(part, modality, options) for part in options.parts]
        encoder: Encoder = FusedEncoder(load_parts(parts), options.weights)
    elif options.python is not None:
        check_elsewhere(name, options)
        encoder = _from_files(name, modality, options)
    elif is_factory(name):
        encoder = from_factory(name, options.recorded())
    elif is_server(name):
        encoder = server_encoder(name, options)
    else:
        encoder = _from_files(name, modality, options)
    if modality is not None and encoder.info.modality != modality:
        raise EncoderError(
            f"{name} encodes {encoder.info.modality}s, not {modality}s",
            f"Give an encoder of {modality}s.",
        )
    return encoder


Part = tuple[str, Modality | None, EncoderOptions]  # what load_with takes


def _part(part: Mapping[str, Any], modality: Modality | None, options: EncoderOptions) -> Part:
    """One part of a fused encoder; its own arguments come before those of the whole."""
    own = {"modality": modality, **part}
    name, modality = own.pop("name"), own.pop("modality")
    return name, modality, replace(options, **{"parts": (), "weights": None, **own})


def load_parts(parts: Sequence[Part]) -> list[Encoder]:
    """The encoder of each part; layers and poolings of one network are loaded as its views, so that
    it is read once, and runs once for all of them.

    Args:
        parts: what :func:`load_with` takes of each.

    Raises:
        EncoderError: one cannot be loaded.
    """
    networks: list[tuple[Part, list[int]]] = []
    for index, (name, modality, options) in enumerate(parts):
        network = (name, modality, replace(options, pooling=None, layer=None))
        members = next((indices for other, indices in networks if other == network), None)
        if members is None:
            networks.append((network, [index]))
        else:
            members.append(index)
    loaded: dict[int, Encoder] = {}
    for (name, modality, shared), members in networks:
        views = [(parts[i][2].pooling, parts[i][2].layer) for i in members]
        loaded.update(zip(members, load_views(name, modality, views, shared), strict=True))
    return [loaded[index] for index in range(len(parts))]


def load_towers(
    name: str, *, device: str = "auto", revision: str | None = None
) -> tuple[Encoder, Encoder]:
    """Both towers of a CLIP-like model with its own projections: the encoders of images and texts.

    They are what :func:`load_encoder` gives for each with pooling ``projection``, but share one
    network, which is read from disk once.

    Raises:
        EncoderError: not found, or not a model with two towers.
    """
    options = EncoderOptions(pooling="projection", device=device, revision=revision)
    if not is_factory(name):
        request = find_request(name, None, options)
        plain = request.gguf is None and not (request.folder / MODULES).is_file()
        if plain and _has_towers(_config(request)):
            with loading(request.folder):
                model, trained = request.pretrained(request.folder)
                return _image_tower(request, model, trained), _text_tower(request, model, trained)
    # Not two towers: loading each by itself says what is wrong.
    return load_with(name, "image", options), load_with(name, "text", options)


def _from_files(name: str, modality: Modality | None, options: EncoderOptions) -> Encoder:
    there = None
    if options.python is not None:
        there = OtherPython(options.python, name, options.device)
        options = replace(options, python=there.python)
    request = find_request(name, modality, options, there)
    with loading(request.gguf or request.folder):
        if request.gguf is not None:
            return _load_gguf(request)
        if (request.folder / MODULES).is_file():
            return _load_sentence(request)
        return _load_plain(request)


def _load_sentence(request: Request) -> Encoder:
    layout = read_layout(request.folder)
    pooling = request.pooling or layout.pooling
    own = request.pooling is None and request.layer is None
    prompted = request.prompt if request.prompt is not None else layout.prompt
    # Only the library leaves a prompt out of the pooling.
    apart = own and bool(prompted) and not layout.pools_prompt
    if pooling is None or apart or request.spec.trust_remote_code:
        return _load_library(request, layout)
    if request.pooling is None:
        _tell_pooling(request, pooling, "as its own pooling module (modules.json) says")
    request = replace(request, prompt=prompted)
    limit, normalize = request.max_tokens or layout.max_tokens, layout.normalize and own
    if request.there is not None:
        return texts_there(
            request, layout.transformer, pooling, max_tokens=limit, normalize=normalize
        )
    model, trained = request.pretrained(layout.transformer)
    return _text(
        request, model, layout.transformer, pooling, trained, max_tokens=limit,
        normalize=normalize,
    )  # fmt: skip


def _load_library(request: Request, layout: SentenceLayout) -> Encoder:
    """A model that runs inside sentence-transformers, as it is."""
    if request.untrained:
        raise EncoderError(
            f"{request.name} runs inside sentence-transformers, which only loads trained models",
            "Leave untrained out.",
        )
    if request.layer is not None or request.pooling is not None:
        raise EncoderError(
            f"{request.name} has a pooling of its own, which no pooling or layer can replace",
            "Leave pooling and layer out.",
        )
    if PLACE in (request.prompt or ""):
        raise EncoderError(
            f"{request.name} runs inside sentence-transformers, which puts prompts before texts",
            f"Give a prompt without {PLACE}.",
        )
    needs = request.spec.needs or TextNeeds()
    processing = {
        "prompt": request.prompt, "max_tokens": request.max_tokens,
        "append_eos": needs.append_eos, "padding_side": needs.padding_side,
    }  # fmt: skip
    if request.prompt is not None and (layout.prompt or not layout.pools_prompt):
        processing["prompted_by"] = "library"  # lateen's own way took it for a part of the text
    info = request.info("text", "own", weights_hash(request.folder, nested=True), processing)
    if request.there is not None:
        return library_there(request, info)
    return SentenceEncoder(request.folder, info, request.device, trust_remote_code=request.remote)


def _load_gguf(request: Request) -> Encoder:
    """A language model in a GGUF file, which says nothing of a pooling."""
    _need_pooling(request, request.pooling, [each for each in POOLINGS if each != "pooler"])
    model, _ = request.pretrained(request.folder)
    return _text(
        request, model, request.folder, str(request.pooling), trained=False,
        max_tokens=request.max_tokens,
    )  # fmt: skip


def _load_plain(request: Request) -> Encoder:
    folder = request.folder
    config = _config(request)
    if _has_towers(config):
        return _load_tower(request)
    # A masked autoencoder must see every patch when it encodes.
    unmasked = {"mask_ratio": 0.0} if config.model_type == "vit_mae" else {}
    vision = hasattr(config, "num_channels") or (folder / "preprocessor_config.json").is_file()
    pooling = request.pooling or _known_pooling(request, config, vision=vision)
    if request.layer is not None and "pooling" not in request.load and _has_maps(config, vision):
        pooling = "mean"  # only the last map has a pooling of its own
    _need_pooling(
        request, pooling, ["cls", "mean", "cls+mean", "pooler"] if vision else list(POOLINGS)
    )
    if request.there is not None:
        if vision:
            return images_there(request, str(pooling), config=unmasked)
        return texts_there(request, folder, str(pooling), max_tokens=request.max_tokens)
    model, trained = request.pretrained(folder, unmasked)
    if vision:
        return _vision(request, model, folder, str(pooling), trained)
    return _text(request, model, folder, str(pooling), trained, max_tokens=request.max_tokens)


def _known_pooling(request: Request, config: Any, *, vision: bool) -> str | None:
    """What the files say of the pooling where the name says nothing; the log says why."""
    module = request.folder / "1_Pooling" / "config.json"
    known: tuple[str | None, str] | None
    if not vision and module.is_file():
        known = pooling_of(read_json(module)), "as its 1_Pooling/config.json says"
    elif _has_maps(config, vision):
        known = "pooler", "as a convolutional network has no other"
    else:
        size = (getattr(config, "hidden_size", None), getattr(config, "num_hidden_layers", None))
        known = family_of(config.model_type).default(config.model_type, size)
    if known is None or known[0] is None:
        return None
    _tell_pooling(request, *known)
    return known[0]


def _tell_pooling(request: Request, pooling: str | None, why: str) -> None:
    log.info("encoder %s: pooling %s, %s", request.name, pooling, why)


def _has_towers(config: Any) -> bool:
    """Whether a model has a tower for images and one for texts."""
    return hasattr(config, "vision_config") and hasattr(config, "text_config")


def _load_tower(request: Request) -> Encoder:
    if request.modality is None:
        raise EncoderError(
            f"{request.name} encodes images and texts", "Say which: modality image or text."
        )
    image = request.modality == "image"
    if request.pooling is None:
        _tell_pooling(request, "pooler", "as each tower of a model with two has its own")
    if request.there is not None:
        pooling = request.pooling or "pooler"
        if image:
            return images_there(request, pooling, tower=True)
        return texts_there(
            request, request.folder, pooling, max_tokens=request.max_tokens, tower=True
        )
    model, trained = request.pretrained(request.folder)
    return (_image_tower if image else _text_tower)(request, model, trained)


def _image_tower(request: Request, model: Any, trained: bool) -> VisionEncoder:
    """``pooler`` is the tower's own pooling, ``projection`` that into the shared space."""
    model.to(request.device)
    return _vision(
        request, model.vision_model, request.folder, request.pooling or "pooler", trained,
        dual=model,
    )  # fmt: skip


def _text_tower(request: Request, model: Any, trained: bool) -> TextEncoder:
    """``pooler`` is the tower's own pooling, ``projection`` that into the shared space."""

    def project(ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        return projected(model.get_text_features(input_ids=ids, attention_mask=mask))

    model.to(request.device)
    length = getattr(model.config.text_config, "max_position_embeddings", None)
    return _text(
        request, model.text_model, request.folder, request.pooling or "pooler", trained,
        project=project, max_tokens=request.max_tokens or length,
    )  # fmt: skip


def _config(request: Request) -> Any:
    from transformers import AutoConfig

    family = family_of(model_type_of(config_file(request.folder)))
    if family.unread and (family.modality == "image" or request.modality != "text"):
        problem, instead = family.unread
        raise EncoderError(f"{request.name} {problem}", instead)
    if request.there is not None:
        return config_there(request)
    remedy = "A class outside transformers needs trust_remote_code."
    with explained(f"transformers does not know the model in {request.folder}", remedy):
        return AutoConfig.from_pretrained(request.folder, trust_remote_code=request.remote)


def _has_maps(config: Any, vision: bool) -> bool:
    """Whether a vision model has no attention: it is convolutional, with feature maps."""
    return vision and not any(
        hasattr(config, name) for name in ("num_attention_heads", "num_heads")
    )


def _need_pooling(request: Request, pooling: str | None, valid: list[str]) -> None:
    if pooling is None:
        raise EncoderError(
            f"{request.name} is not in lateen's table, so its pooling must be given",
            f"Pass --pooling (run: --vision.pooling, --text.pooling): {', '.join(valid)}.",
        )
    if pooling not in [*valid, "projection"]:
        raise EncoderError(f"unknown pooling {pooling!r}", choices(pooling, valid))


def _vision(
    request: Request,
    model: Any,
    folder: Path,
    pooling: str,
    trained: bool,
    *,
    dual: Any = None,
) -> VisionEncoder:
    processor = load_processor(folder, trust_remote_code=request.remote)
    weights = request.weights(folder, model)
    info = request.info("image", pooling, weights, describe_processing(processor))
    return VisionEncoder(model, processor, info, request.device, pooler_trained=trained, dual=dual)


def _text(
    request: Request,
    model: Any,
    folder: Path,
    pooling: str,
    trained: bool,
    *,
    max_tokens: int | None,
    normalize: bool = False,
    project: Any = None,
) -> TextEncoder:
    tokenizer, files = request.tokenizer(folder)
    tokenizer.padding_side = "right"
    facts = TextFacts.of(model, tokenizer)
    needs = request.spec.needs or family_of(facts.model_type).needs
    processing = facts.settings(
        needs, files, prompt=request.prompt, max_tokens=max_tokens, normalize=normalize
    )
    info = request.info("text", pooling, request.weights(folder, model), processing)
    return TextEncoder(
        model, tokenizer, info, request.device, pooler_trained=trained, project=project
    )


def load_views(
    name: str,
    modality: Modality | None,
    views: Sequence[tuple[str | None, int | None]],
    options: EncoderOptions | None = None,
) -> list[Encoder]:
    """One encoder per (pooling, layer) of ``views``; they share one network where it gives several.

    Args:
        name: as for :func:`~lateen.encoders.load_encoder`.
        modality: likewise.
        views: pooling and layer of each, ``None`` for the encoder's own.
        options: for all, but for their pooling and layer.

    Raises:
        EncoderError: one cannot be loaded, or has no such pooling or layer.
    """
    options = options or EncoderOptions()
    poolings = [pooling for pooling, _ in views]
    # An encoder's own pooling can only be had by loading it without one.
    own = None if None in poolings else poolings[0]
    if len(views) > 1:
        base = load_with(name, modality, replace(options, pooling=own, layer=None))
        if isinstance(base, ViewedEncoder):
            return [base if view == (own, None) else base.view(*view) for view in views]
    return [
        load_with(name, modality, replace(options, pooling=pooling, layer=layer))
        for pooling, layer in views
    ]
