"""TRL's SFTTrainer for a multimodal model: loss of labelled tokens, checkpoints of what moves."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import SFTConfig, SFTTrainer

from lateen.device import resolve_device, resolve_precision
from lateen.encoders.weights import quiet_transformers
from lateen.errors import TrainingError
from lateen.mllm.asking import MultimodalModel
from lateen.mllm.batches import Batch, Collator, losses
from lateen.mllm.config import MultimodalRecipe, StageSection
from lateen.mllm.labelling import Labelled
from lateen.mllm.preparation import PROJECTOR, Preparation
from lateen.progress import bar, log

_WEIGHTS = "trained.safetensors"


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


def open_trainer(
    start: MultimodalModel, prepared: Preparation, folder: Path, callback: Any
) -> tuple[Any, Any, bool]:
    """TRL's trainer of a stage, which has not begun.

    Args:
        start: the model, which is put into the precision of the training.
        prepared: what is learned.
        folder: for checkpoints.
        callback: of transformers.

    Returns:
        The trainer, what peft adds (or ``None``), and whether it is trained in bfloat16.
    """
    plan = prepared.plan
    half = _put_into_precision(start, plan)
    lora = _lora(start, plan)
    _choose_parameters(start, plan)
    trainer = MultimodalTrainer(
        start.model, plan.train, _arguments(prepared, folder, half), lora=lora,
        conversations=prepared.learned, collator=prepared.collator, processor=start.processor,
        callbacks=[callback],
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)  # prints every row
    return trainer, lora, half


@contextlib.contextmanager
def quiet_training() -> Iterator[None]:
    """Without what transformers says, and a warning that is meant for peft, which asks it by an
    older name."""
    with quiet_transformers(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def _put_into_precision(start: MultimodalModel, plan: MultimodalRecipe) -> bool:
    """Hold what is frozen in the precision of the training; whether that is bfloat16.

    What moves is float32 in any case.
    """
    half = resolve_precision(plan.precision, resolve_device(plan.device)) == "bfloat16"
    model = start.model
    text_is_frozen = plan.stage == "projector" or plan.tune == "lora"
    parts = [
        (model.model.vision_tower, not plan.train.tune_tower or plan.tune == "lora"),
        (model.model.multi_modal_projector, False),
        (model.model.language_model, text_is_frozen),
        (model.lm_head, text_is_frozen),
    ]
    for part, frozen in parts:
        part.to(torch.bfloat16 if half and frozen else torch.float32)
    return half


def _choose_parameters(start: MultimodalModel, plan: MultimodalRecipe) -> None:
    """Let the projector learn; the language model and the tower where that is asked for whole.

    What peft adds learns anyway.
    """
    model = start.model
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)
    if plan.stage == "instruct" and plan.tune == "full":
        model.model.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)
        if plan.train.tune_tower:
            model.model.vision_tower.requires_grad_(True)


def _lora(start: MultimodalModel, plan: MultimodalRecipe) -> Any:
    """What peft adds: to linear layers of the language model, and of the tower if asked for. The
    projector moves whole."""
    if plan.stage != "instruct" or plan.tune != "lora":
        return None
    from peft import LoraConfig

    parts = {"model.language_model.": start.model.model.language_model}
    if plan.train.tune_tower:
        parts["model.vision_tower."] = start.model.model.vision_tower
    settings = plan.train
    return LoraConfig(
        r=settings.lora_rank, lora_alpha=settings.lora_alpha, lora_dropout=settings.lora_dropout,
        target_modules=[
            prefix + name for prefix, part in parts.items()
            for name, each in part.named_modules() if isinstance(each, nn.Linear)
        ],
        modules_to_save=[PROJECTOR], task_type="CAUSAL_LM",
    )  # fmt: skip


def _arguments(prepared: Preparation, folder: Path, half: bool) -> Any:
    plan, settings = prepared.plan, prepared.plan.train
    device = resolve_device(plan.device)
    workers = 0 if prepared.stored or device.type == "cpu" else plan.workers or 4
    return SFTConfig(
        output_dir=str(folder), max_steps=prepared.steps,
        per_device_train_batch_size=settings.at_once,
        gradient_accumulation_steps=settings.batch // settings.at_once,
        learning_rate=settings.lr, lr_scheduler_type="cosine",
        warmup_steps=round(settings.warmup * prepared.steps), weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip_norm or 0.0, seed=settings.seed, data_seed=settings.seed,
        bf16=half, use_cpu=device.type == "cpu", max_length=None,
        activation_checkpointing=settings.gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False}
        if settings.gradient_checkpointing else None,
        dataloader_num_workers=workers, dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False, save_strategy="steps", save_total_limit=1,
        save_steps=max(1, -(-prepared.steps // settings.checkpoints)),
        logging_steps=max(1, prepared.steps // 200), report_to=[], disable_tqdm=True,
        logging_nan_inf_filter=False,
    )  # fmt: skip


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
