"""A vision tower and a language model, put together as transformers' own Llava and saved as one."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from lateen.encoders.resolve import check_language_model
from lateen.encoders.weights import quiet_transformers
from lateen.errors import ModelError
from lateen.files import atomic_folder, library_versions, refuse_foreign, write_json, write_text
from lateen.mllm.backbone import trained_on_of
from lateen.mllm.card import UNTRAINED, model_card
from lateen.mllm.config import Norm
from lateen.mllm.conversations import ask, prepare
from lateen.mllm.fused import FusedTower, Mix, open_towers, part_scales
from lateen.mllm.language import LanguageModel, load_language_model
from lateen.mllm.templates import end_tokens, find_template, read_template
from lateen.mllm.tower import TokenKind, Tower, root_mean_square
from lateen.model import AlignedModel
from lateen.model.saving import share_files
from lateen.model.trained_on import TRAINED_ON, TrainedOn
from lateen.progress import log

RECORD = "mllm.json"
"""What a folder says of how it was put together; a training adds what it did."""
_PICTURES = 4
# Normalised tokens are 7 times SmolLM2's embeddings, and are learned best (docs/mllm.md).
_APART = 100.0  # tokens and embeddings whose scales differ by more are told to be of another


@dataclass(frozen=True)
class Scales:
    """Root mean squares of what meets in the language model, of made-up pictures.

    Attributes:
        tokens: what the tower gives, before the projector.
        projected: what the projector makes of it.
        embeddings: what the language model's own tokens are.
    """

    tokens: float
    projected: float
    embeddings: float


@dataclass(frozen=True)
class Assembled:
    """A multimodal language model whose projector knows nothing yet.

    Attributes:
        model: transformers' ``LlavaForConditionalGeneration``.
        processor: its ``LlavaProcessor``.
        record: what it was made of, as JSON values.
        scales: of tokens and embeddings.
        trained_on: the images that its towers were trained on, where they say so.
    """

    model: Any
    processor: Any
    record: dict[str, Any]
    scales: Scales
    trained_on: TrainedOn | None = None

    def save(self, out: str | Path) -> Path:
        """Write it to a folder, which plain transformers loads where ``lateen.mllm`` is imported.

        Args:
            out: a folder of an earlier multimodal model is replaced.

        Raises:
            LateenError: it holds something else, or the disk is full.
        """
        out = Path(out)
        refuse_foreign(out, "the folder of a multimodal model", (RECORD,), error=ModelError)
        with atomic_folder(out) as folder:
            write_model(folder, self.model, self.processor, self.record, out.name, self.trained_on)
        return out


def write_model(
    folder: Path, model: Any, processor: Any, record: Mapping[str, Any], name: str,
    trained_on: TrainedOn | None,
) -> None:  # fmt: skip
    """Write a multimodal model, its record and its card into a folder.

    Args:
        folder: that is there.
        model: transformers' Llava.
        processor: its own.
        record: as :data:`RECORD` is to have it.
        name: that the card gives it.
        trained_on: the images that it and its tower were trained on, where that is known.
    """
    with quiet_transformers():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    write_json(folder / RECORD, dict(record))
    write_text(folder / "README.md", model_card(name, record))
    if trained_on is not None:
        trained_on.save(folder / TRAINED_ON)
    share_files(folder)


def build(
    tower: str | Path | AlignedModel | Sequence[str | Path | AlignedModel], llm: str | Path,
    out: str | Path | None = None, *, mix: Mix | None = None, share: float | None = None,
    tokens: TokenKind | None = None, layer: int | None = None, bare: bool = False,
    grid: int | None = None, norm: Norm = "layer", template: str | Path | None = None,
    seed: int = 0,
) -> Assembled:  # fmt: skip
    """Put a vision tower in front of a language model, as LLaVA-1.5 does, with a new projector.

    The projector is untrained: until it is trained, answers have nothing to do with the image.

    Args:
        tower: an AlignedModel or its folder, a CLIP, or a vision encoder by folder or hub id;
            several are fused, and the other options are for all of them.
        llm: folder, GGUF file or hub id of a causal language model.
        out: folder to save it in.
        mix: of several towers: ``additive``, ``interleaved`` or ``channels``; the first if not
            given.
        share: of the first tower in an additive mixture; half if not given.
        tokens: what the tower gives of an image: ``cls+patch``, ``patch`` or ``cls,patch``; what
            the model's head was trained for, else patches, if not given.
        layer: a hidden layer of the backbone, without the head (LLaVA: -2).
        bare: leave the model's image head out.
        grid: average the patches to so many rows and columns.
        norm: ``layer`` normalises each token, by which a projector learns faster; ``none`` leaves
            them, as LLaVA does.
        template: ``chatml``, ``vicuna`` or a file of Jinja; of the form of the language model's own
            if not given.
        seed: of the projector's start.

    Raises:
        UsageError: the language model has no known chat template, or options do not go together.
        EncoderError: the tower has no such tokens, or towers do not fit each other.
        ModelError: a model is not there, or tokens and placeholders do not match.
    """
    check_language_model(llm)
    if template is not None:
        read_template(template)
    if out is not None:
        refuse_foreign(Path(out), "the folder of a multimodal model", (RECORD,), error=ModelError)
    towers = [tower] if isinstance(tower, str | Path | AlignedModel) else tower
    vision, image_processor = open_towers(
        towers, mix=mix, share=share, tokens=tokens, layer=layer, bare=bare, grid=grid,
    )  # fmt: skip
    vision.config.norm = None if norm == "none" else norm
    language = load_language_model(llm)
    assembled = replace(
        assemble(vision, image_processor, language, template=template, seed=seed),
        trained_on=trained_on_of(towers),
    )
    if out is not None:
        assembled.save(out)
    return assembled


def assemble(
    tower: Tower, image_processor: Any, language: LanguageModel, *,
    template: str | Path | None = None, seed: int = 0,
) -> Assembled:  # fmt: skip
    """The same of parts that are loaded; they are used as they are, and not copied.

    Args:
        tower: from pixels to tokens; it takes the language model's number format.
        image_processor: of its backbone, or of the first part's.
        language: with its tokenizer.
        template: as for :func:`build`.
        seed: likewise.

    Raises:
        UsageError: the language model has no known chat template.
        ModelError: tokens and placeholders do not match.
    """
    name, jinja = find_template(template, language.tokenizer, language.name)
    processor = LlavaProcessor(
        image_processor=image_processor, tokenizer=language.tokenizer,
        patch_size=tower.config.patch_size, vision_feature_select_strategy="full",
        num_additional_image_tokens=tower.config.additional_tokens, chat_template=jinja,
    )  # fmt: skip
    model = _join(tower, language, end_tokens(name, language.tokenizer), seed)
    scales = _check(model, processor, language)
    record = {
        "projector": UNTRAINED,
        "tower": _described(tower, image_processor),
        "llm": {"name": language.name, "width": language.width},
        "template": name, "seed": seed, "rms": asdict(scales),
        "parameters": sum(each.numel() for each in model.parameters()),
        "versions": library_versions(),
    }  # fmt: skip
    return Assembled(model, processor, record, scales)


def _described(tower: Tower, image_processor: Any) -> dict[str, Any]:
    """What the record says of a tower; of each part of a fused one the scale, too."""
    described: dict[str, Any] = tower.config.as_record()
    if isinstance(tower, FusedTower):
        scales = part_scales(tower, _pixels(image_processor))
        for part, scale in zip(described["parts"], scales, strict=True):
            part["rms"] = scale
    return described


def _join(tower: Tower, language: LanguageModel, ends: list[int], seed: int) -> Any:
    """Transformers' Llava of the two, and a projector that begins as torch's layers do."""
    dtype = language.model.dtype
    config = LlavaConfig(
        vision_config=tower.config, text_config=language.model.config,
        image_token_index=language.image_token, image_seq_length=tower.config.num_tokens,
        vision_feature_select_strategy="full", vision_feature_layer=-1,
        tie_word_embeddings=language.model.config.tie_word_embeddings,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projector = LlavaMultiModalProjector(config).to(dtype)
    config.dtype = dtype
    # Of its own settings only what ends a text: how it samples is no matter of answers here.
    generation = GenerationConfig(
        eos_token_id=ends, pad_token_id=language.tokenizer.pad_token_id,
        bos_token_id=language.tokenizer.bos_token_id,
    )  # fmt: skip
    return llava_of(
        config, tower.to(dtype), projector, language.model.base_model,
        language.model.get_output_embeddings(), generation,
    )  # fmt: skip


def llava_of(
    config: Any, tower: Any, projector: Any, language_model: Any, lm_head: Any, generation: Any
) -> Any:
    """Transformers' Llava around parts that are there, in evaluation mode.

    Args:
        config: of the whole.
        tower: from pixels to tokens.
        projector: from tokens to embeddings.
        language_model: without its output layer.
        lm_head: which is that.
        generation: settings of generation.
    """
    with torch.device("meta"):  # its random parts are not needed
        model = LlavaForConditionalGeneration(config)
    model.model.vision_tower = tower
    model.model.multi_modal_projector = projector
    model.model.language_model = language_model
    model.lm_head = lm_head
    model.generation_config = generation
    return model.eval()


@torch.no_grad()
def _check(model: Any, processor: Any, language: LanguageModel) -> Scales:
    """One forward pass: as many placeholders as tokens, and of which scale these are.

    Raises:
        ModelError: another number, or numbers that are none.
    """
    inputs = prepare(processor, ask("What is this?", 1), made_up_pictures(1))
    pixels = _pixels(processor.image_processor)
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    tokens: Tensor = tower(pixels).hidden_states[-1]
    check_placeholders(inputs["input_ids"], language.image_token, 1, tokens.shape[1])
    projected = projector(tokens)
    logits = model(**inputs).logits
    if not bool(logits.isfinite().all()):
        raise ModelError(
            f"{language.name} gives NaN or infinity after an image",
            "Load it in float32, or look at the scale of the tower's tokens.",
        )
    scales = Scales(root_mean_square(tokens), root_mean_square(projected), language.embedding_rms)
    message = (
        "the tower's tokens have a root mean square of %.3g, the language model's embeddings %.3g"
        " (the untrained projector makes %.3g of the tokens; %d made-up pictures)%s"
    )
    apart = max(scales.tokens / scales.embeddings, scales.embeddings / max(scales.tokens, 1e-12))
    far = apart > _APART
    warning = ": so far apart, a training may begin badly; see that its loss falls" if far else ""
    log.log(
        logging.WARNING if far else logging.INFO, message, scales.tokens, scales.embeddings,
        scales.projected, _PICTURES, warning,
    )  # fmt: skip
    return scales


def check_placeholders(input_ids: Tensor, image_token: int, images: int, tokens: int) -> None:
    """See that a text has a placeholder for every token of its images.

    Args:
        input_ids: of one text.
        image_token: id of the placeholder.
        images: how many belong to it.
        tokens: that the tower gives of each.

    Raises:
        ModelError: it has more, or fewer.
    """
    places = int((input_ids == image_token).sum())
    if places != images * tokens:
        raise ModelError(
            f"the processor writes {places} placeholders for {images} "
            f"image{'s' * (images != 1)}, and the tower gives {images * tokens} tokens",
            "The processor, its chat template and the tower are not of one model: build it again.",
        )


def made_up_pictures(count: int) -> list[Image.Image]:
    """Coloured blotches, the same in every call: nearer to photographs than black or noise is."""
    generator = np.random.default_rng(0)
    small = generator.integers(0, 256, (count, 8, 8, 3), np.uint8)
    return [Image.fromarray(each).resize((256, 256), Image.Resampling.BICUBIC) for each in small]


def _pixels(image_processor: Any) -> Tensor:
    made: Tensor = image_processor(images=made_up_pictures(_PICTURES), return_tensors="pt")[
        "pixel_values"
    ]
    return made
