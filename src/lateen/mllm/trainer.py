"""TRL's SFTTrainer for a multimodal model: loss of labelled tokens, checkpoints of what moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from lateen.errors import ImageError, TrainingError
from lateen.mllm.config import StageSection
from lateen.mllm.image_tokens import ImageTokens
from lateen.mllm.labelling import NO_LABEL, Labelled, collate
from lateen.progress import bar, log

PROJECTOR = "multi_modal_projector"
"""What the names of the projector's parameters have in them, in transformers' Llava."""
_WEIGHTS = "trained.safetensors"
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Collator:
    """Makes a batch of conversations.

    Attributes:
        image_token: id of the placeholder.
        tokens: of an image.
        pad_token: id of what stands behind shorter ones.
        images: gives what stands for images.
    """

    image_token: int
    tokens: int
    pad_token: int
    images: ImageTokens

    def __call__(self, some: Sequence[Labelled]) -> Batch:
        """Ids, labels, attention mask, and of images in it ``pixel_values``; without those whose
        images turn out not to be readable, which is logged.

        Raises:
            ImageError: those of all of them.
        """
        try:
            return self.under(some, _images(some))
        except ImageError as error:
            readable = [each for each in some if self.images.readable(each.images)]
            if not readable:
                raise
            log.warning("left out of its step: %s", error.message)
            return self.under(readable, _images(readable))

    def under(self, some: Sequence[Labelled], images: Sequence[str]) -> Batch:
        """The same about these images, in the order of their places."""
        batch = collate(
            some, image_token=self.image_token, tokens=self.tokens, pad_token=self.pad_token
        )
        if images:
            batch["pixel_values"] = self.images.of(images)
        return batch


def _images(some: Sequence[Labelled]) -> list[str]:
    return [name for each in some for name in each.images]


def losses(model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """The cross entropy of every labelled token, and which conversation of the batch it is of.

    The language model's head is run on the columns that have a label in any row, not on those of
    images and questions, which is most of the work of a small model with a large vocabulary.

    Args:
        model: Llava, or what wraps it.
        batch: as a :class:`Collator` makes it.

    Returns:
        Both ``[labelled tokens]``.
    """
    targets = batch["labels"][:, 1:]
    columns = (targets != NO_LABEL).any(0).nonzero().squeeze(1)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs, logits_to_keep=columns, use_cache=False).logits
    chosen = targets[:, columns]
    labelled = chosen != NO_LABEL
    each = F.cross_entropy(logits[labelled].float(), chosen[labelled], reduction="none")
    return each, labelled.nonzero()[:, 0]


class MultimodalTrainer(SFTTrainer):  # type: ignore[misc]
    """SFTTrainer that scores labelled positions alone and keeps in checkpoints what moves.

    Args:
        model: Llava; what is to learn requires gradients.
        settings: of the stage.
        arguments: of TRL.
        conversations: to learn from.
        collator: makes batches of them.
        processor: of the model.
        lora: what peft adds, if anything.
        callbacks: of transformers.
    """

    def __init__(
        self, model: Any, settings: StageSection, arguments: SFTConfig, *,
        conversations: Sequence[Labelled], collator: Collator, processor: Any, lora: Any = None,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:  # fmt: skip
        from datasets import Dataset

        self._settings = settings
        # The trainer sees numbers, by which the collator finds conversations; a column of this name
        # keeps it from preparing texts of its own.
        rows = Dataset.from_dict({"images": list(range(len(conversations)))})
        super().__init__(
            model, arguments, train_dataset=rows, processing_class=processor, peft_config=lora,
            data_collator=lambda some: collator([conversations[each["images"]] for each in some]),
            callbacks=list(callbacks),
        )  # fmt: skip

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # fmt: skip
        """The mean over the labelled tokens of the whole batch.

        Raises:
            TrainingError: it is not finite.
        """
        # What a trainer does around the model's own forward is not around this.
        with self.accelerator.autocast():
            each, _ = losses(model, inputs)
        count = len(each) if num_items_in_batch is None else num_items_in_batch
        loss = each.sum() / count
        if "pixel_values" not in inputs:  # so that every process has a gradient for it
            loss = loss + 0 * sum(p.sum() for n, p in model.named_parameters() if PROJECTOR in n
                                  and p.requires_grad)  # fmt: skip
        if not bool(loss.isfinite()):
            raise TrainingError(
                f"the loss is not finite in step {self.state.global_step + 1}",
                "Lower train.lr, or train in float32: --precision float32.",
            )
        return (loss, None) if return_outputs else loss

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW: the projector has a rate of its own, biases and norms no decay."""
        del model
        made: torch.optim.Optimizer | None = getattr(self, "optimizer", None)
        if made is None:
            settings = self._settings
            groups: dict[tuple[float, float], list[nn.Parameter]] = {}
            for name, parameter in self.model.named_parameters():
                if parameter.requires_grad:
                    rate = settings.rate_of_projector if PROJECTOR in name else settings.lr
                    decay = settings.weight_decay if parameter.ndim > 1 else 0.0
                    groups.setdefault((rate, decay), []).append(parameter)
            made = torch.optim.AdamW([
                {"params": parameters, "lr": rate, "weight_decay": decay}
                for (rate, decay), parameters in groups.items()
            ])  # fmt: skip
            self.optimizer = made
        return made

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Checkpoints are no models of their own."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """A checkpoint has what moves, not what is frozen."""
        del state_dict
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_file(trained_weights(self.model), folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        del model
        put_weights(self.model, load_file(Path(resume_from_checkpoint) / _WEIGHTS))


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters that learn, by name, on the CPU."""
    return {
        name: parameter.detach().cpu().clone().contiguous()
        for name, parameter in model.named_parameters() if parameter.requires_grad
    }  # fmt: skip


@torch.no_grad()
def put_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put parameters in their places by name; all of them must have one."""
    places = dict(model.named_parameters())
    for name, value in weights.items():
        places[name].copy_(value)


class Progress(TrainerCallback):  # type: ignore[misc]
    """A bar, the rows of the loss, and what is measured on the way.

    Args:
        measure: is called at the steps of ``at``, and gives what goes into the rows.
        at: steps, of which the last is the last of all.
    """

    def __init__(self, measure: Callable[[int], None], at: Sequence[int]) -> None:
        self._measure, self._at = measure, frozenset(at)
        self._bar: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the bar."""
        del args, control
        self._bar = bar(state.max_steps, "training", "step", initial=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count, and measure where it is time."""
        del args, control
        self._bar.update()
        if state.global_step in self._at:
            self._measure(state.global_step)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Show the loss."""
        del args, control
        if logs and "loss" in logs and self._bar is not None:
            self._bar.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
            log.debug("step %d: loss %.4f", state.global_step, logs["loss"])

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
