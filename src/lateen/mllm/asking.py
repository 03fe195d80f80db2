"""A saved multimodal language model, asked about images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, TextStreamer

from lateen.device import resolve_device
from lateen.encoders.faults import explained
from lateen.encoders.resolve import check_mllm_folder
from lateen.encoders.weights import quiet_transformers
from lateen.errors import ModelError, UsageError
from lateen.files import read_json
from lateen.mllm.assembly import RECORD, check_placeholders
from lateen.mllm.card import UNTRAINED
from lateen.mllm.conversations import ask, parts_of, prepare
from lateen.mllm.templates import CAPTION_PROMPT
from lateen.mllm.tower import TowerConfig
from lateen.model.model import as_image
from lateen.model.trained_on import TRAINED_ON, TrainedOn

MOST_TOKENS = 256
_PROJECTOR = "multi_modal_projector.linear_1.weight"


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: without the token that ends it.
        cut: whether the limit ended it, and not the model.
        tokens: how many were generated.
        prompt_tokens: how many came before, the images' own among them.
        images: how many it was shown.
        projector: ``untrained`` where the answer has nothing to do with the images; ``None`` where
            nothing is known of it.
        seconds: that it took.
        context: how many tokens the language model takes, where it was that which cut the answer.
        captions_only: whether nothing but captions of images was learned yet.
    """

    text: str
    cut: bool
    tokens: int
    prompt_tokens: int
    images: int
    projector: str | None
    seconds: float
    context: int | None = None
    captions_only: bool = False

    def __str__(self) -> str:
        return self.text

    @property
    def notes(self) -> list[str]:
        """What whoever reads the answer has to know of it."""
        notes = []
        if self.cut:
            notes.append(
                f"The answer is cut: it reached the limit of {self.tokens} tokens."
                if self.context is None else
                f"The answer is cut: the language model's context of {self.context:,} tokens is "
                "full."
            )  # fmt: skip
        if self.projector == UNTRAINED and self.images:
            notes.append("The projector is untrained: the answer has nothing to do with the image.")
        elif self.captions_only and self.images:
            notes.append("The model has learned captions alone: it has yet to learn to answer.")
        return notes

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with the notes."""
        return {**asdict(self), "notes": self.notes}


class MultimodalModel:
    """A model and its processor, ready to answer.

    Args:
        model: transformers' Llava, or another that takes images and texts.
        processor: its own.
        record: how it was put together, as :data:`~lateen.mllm.assembly.RECORD` has it.
        trained_on: the images that it and its tower were trained on, where that is known.

    Attributes:
        model: as given.
        processor: as given.
        record: as given; empty of a model that is not lateen's.
        trained_on: as given.
    """

    def __init__(
        self, model: Any, processor: Any, record: Mapping[str, Any] | None = None,
        trained_on: TrainedOn | None = None,
    ) -> None:  # fmt: skip
        self.model = model
        self.processor = processor
        self.record = dict(record or {})
        self.trained_on = trained_on

    @classmethod
    def from_pretrained(cls, path: str | Path, *, device: str = "auto") -> MultimodalModel:
        """Load a saved model, in the number format that it is stored in.

        Args:
            path: its folder, or the hub id of a Llava.
            device: ``auto``, ``cpu``, ``cuda``, ….

        Raises:
            ModelError: it is not there, no such model, not whole, or its parts do not fit.
            EncoderError: transformers cannot load it.
        """
        folder = Path(path).expanduser()
        source = folder if folder.is_dir() else str(path)
        where = resolve_device(device)
        check_mllm_folder(path)
        record = folder / RECORD
        loading = explained(
            f"the multimodal model {path} cannot be loaded", "Copy or build the whole folder again."
        )
        with quiet_transformers(), loading:
            config = AutoConfig.from_pretrained(source)
            _check_width(folder, config)
            model, report = AutoModelForImageTextToText.from_pretrained(
                source, config=config, dtype="auto", output_loading_info=True
            )
            processor = AutoProcessor.from_pretrained(source, backend="pil")
        if missing := sorted(report["missing_keys"]):
            raise ModelError(
                f"{path} lacks {len(missing)} weights (first {missing[0]!r}) and would be partly "
                "random",
                "Copy or build the whole folder again.",
            )
        _check_processor(config, processor, path)
        return cls(
            model.to(where).eval(),
            processor,
            read_json(record) if record.is_file() else None,
            TrainedOn.load(images) if (images := folder / TRAINED_ON).is_file() else None,
        )

    @torch.no_grad()
    def answer(
        self,
        question: str | Sequence[Mapping[str, Any]],
        images: Image | str | Path | Sequence[Image | str | Path] = (),
        *,
        max_tokens: int = MOST_TOKENS,
        system: str | None = None,
        stream: Callable[[str], None] | None = None,
    ) -> Answer:
        """Answer a question about images, or none; the likeliest token each time.

        Args:
            question: a sentence, whose images stand before it or where it says ``<image>``; or a
                conversation, a list of ``{"role": …, "content": …}``, that ends with the user.
            images: PIL images or paths, in the order of their places.
            max_tokens: of the answer at most.
            system: what the model is told of its task, beside a sentence.
            stream: gets pieces of the answer as they come.

        Raises:
            DataError: another number of ``<image>`` than images, or a turn without content.
            ImageError: an image cannot be read.
            ModelError: placeholders and tokens do not match, or the context is too short.
            UsageError: nothing is asked, or a limit below 1.
        """
        if max_tokens < 1:
            raise UsageError(f"an answer of {max_tokens} tokens is none", "Give 1 or more.")
        shown = [images] if isinstance(images, Image | str | Path) else list(images)
        pictures = [as_image(item) for item in shown]
        inputs = self.inputs(question, pictures, system)
        length = int(inputs["input_ids"].shape[1])
        limit = self.limit(length, max_tokens)
        streamer = None if stream is None else _Streamer(self.processor.tokenizer, stream)
        begin = time.perf_counter()
        generated = self.generate(inputs, limit, streamer=streamer)[0, length:].tolist()
        ended = bool(generated) and generated[-1] in self.end_tokens
        text = self.processor.tokenizer.decode(generated, skip_special_tokens=True).strip()
        return Answer(
            text, not ended, len(generated), length, len(pictures), self.record.get("projector"),
            time.perf_counter() - begin,
            None if ended or limit == max_tokens else length + limit, self.captions_only,
        )  # fmt: skip

    def inputs(
        self, question: str | Sequence[Mapping[str, Any]], pictures: list[Image],
        system: str | None = None,
    ) -> Any:  # fmt: skip
        """Token ids and pixels, with a placeholder for every token of an image.

        Args:
            question: as for :meth:`answer`.
            pictures: RGB, in the order of their places.
            system: as there.

        Raises:
            DataError: another number of ``<image>`` than images, or a turn without content.
            ModelError: placeholders and tokens do not match.
            UsageError: nothing is asked, or there is no chat template for it.
        """
        if isinstance(question, str):
            messages = ask(question, len(pictures), system)
        elif system is not None:
            raise UsageError(
                "a conversation has its system message in itself", "Make it its first turn."
            )
        else:
            messages = parts_of(question, len(pictures))
            if messages[-1]["role"] != "user":
                raise UsageError("the conversation does not end with the user", "Ask something.")
        inputs = prepare(self.processor, messages, pictures)
        tower = self.model.config.vision_config
        if isinstance(tower, TowerConfig):
            check_placeholders(
                inputs["input_ids"], self.model.config.image_token_index, len(pictures),
                tower.num_tokens,
            )  # fmt: skip
        return inputs.to(self.model.device)

    def generate(self, inputs: Any, max_tokens: int, **options: Any) -> Any:
        """What transformers' ``generate`` gives, the likeliest token each time.

        Args:
            inputs: as :meth:`inputs` gives them.
            max_tokens: at most.
            options: others of transformers.
        """
        with quiet_transformers():
            return self.model.generate(
                **inputs, max_new_tokens=max_tokens, do_sample=False, temperature=None, top_p=None,
                top_k=None, **options,
            )  # fmt: skip

    @property
    def context(self) -> int | None:
        """How many tokens the language model takes; ``None`` where it does not say."""
        most = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return None if most is None else int(most)

    @property
    def captions_only(self) -> bool:
        """Whether all that was learned of images is their captions, in the stage ``projector``."""
        stages = [each["stage"] for each in self.record.get("stages", ())]
        return bool(stages) and set(stages) == {"projector"}

    @property
    def caption_prompt(self) -> str:
        """What stood before captions when its projector was trained on them, if it was."""
        return str(self.record.get("caption_prompt", CAPTION_PROMPT))

    @property
    def end_tokens(self) -> list[int]:
        """Ids of the tokens that end an answer."""
        ids = self.model.generation_config.eos_token_id
        if ids is None:
            return []
        return [ids] if isinstance(ids, int) else list(ids)

    def limit(self, length: int, most: int) -> int:
        """How many tokens can be generated after a prompt.

        Args:
            length: of the prompt, in tokens.
            most: that are wanted.

        Raises:
            ModelError: the prompt fills the language model's context.
        """
        context = self.context
        if context is None:
            return most
        if length >= context:
            raise ModelError(
                f"the question with its images is {length:,} tokens long, and the language model "
                f"takes {context:,}",
                "Show fewer images, or build with a smaller --grid.",
            )
        return min(most, context - length)


def answer(
    mllm: str | Path | MultimodalModel,
    question: str | Sequence[Mapping[str, Any]],
    images: Image | str | Path | Sequence[Image | str | Path] = (),
    *,
    max_tokens: int = MOST_TOKENS,
    system: str | None = None,
    stream: Callable[[str], None] | None = None,
) -> Answer:
    """Ask a multimodal language model about images: :meth:`MultimodalModel.answer`, of a folder.

    Args:
        mllm: the model, or its folder.
        question: as there.
        images: as there.
        max_tokens: as there.
        system: as there.
        stream: as there.
    """
    loaded = mllm if isinstance(mllm, MultimodalModel) else MultimodalModel.from_pretrained(mllm)
    return loaded.answer(question, images, max_tokens=max_tokens, system=system, stream=stream)


class _Streamer(TextStreamer):  # type: ignore[misc]
    """Hands on pieces of text as whole words come."""

    def __init__(self, tokenizer: Any, stream: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._stream = stream

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """What transformers calls with each piece."""
        del stream_end
        if text:
            self._stream(text)


def _check_width(folder: Path, config: Any) -> None:
    """See that the projector takes tokens of the tower's width, before transformers says it in
    matrices.

    Raises:
        ModelError: it takes others.
    """
    if config.model_type != "llava":
        return
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            found = [name for name in weights.keys() if name.endswith(_PROJECTOR)]  # noqa: SIM118
            width = weights.get_slice(found[0]).get_shape()[1] if found else None
        layers = config.vision_feature_layer
        tower = config.vision_config.hidden_size * (1 if isinstance(layers, int) else len(layers))
        if width is not None and width != tower:
            raise ModelError(
                f"the projector in {folder} takes tokens of {width} values, and the tower gives "
                f"{tower}",
                "Use the tower that the projector was trained with, or build anew.",
            )


def _check_processor(config: Any, processor: Any, path: str | Path) -> None:
    """See that processor and tower count alike.

    Raises:
        ModelError: they do not.
    """
    tower = config.vision_config
    if not isinstance(tower, TowerConfig):
        return
    height, width = tower.size
    counted = (height // processor.patch_size) * (width // processor.patch_size)
    counted += processor.num_additional_image_tokens
    counted -= processor.vision_feature_select_strategy == "default"
    if counted != tower.num_tokens:
        raise ModelError(
            f"the processor in {path} writes {counted} placeholders for an image, and the tower "
            f"gives {tower.num_tokens} tokens",
            "The processor and the tower are not of one model: build it again.",
        )
