"""Tune a CLIP's image tower to a stronger encoder's kernel matrix, measured all the way (KUEA)."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lateen.errors import TrainingError
from lateen.evaluation.features import model_facts, model_key
from lateen.files import (
    LOG,
    content_key,
    folder_lock,
    library_versions,
    read_json,
    refuse_foreign,
    write_json,
)
from lateen.hardware import use_hardware
from lateen.model import AlignedModel
from lateen.model.clip import open_model
from lateen.model.trained_on import ImageGroup, TrainedOn
from lateen.progress import log, log_file
from lateen.report.tables import signed
from lateen.training.checkpoint import load_checkpoint
from lateen.training.loop import CHECKPOINT, fit
from lateen.training.ranks import Ranks, process_group
from lateen.tuning.alignment import Alignment, KernelAlignment, TunedTower
from lateen.tuning.baseline import projection_model
from lateen.tuning.checks import Check
from lateen.tuning.compatibility import Compatibility, judged_key
from lateen.tuning.config import TuneRecipe, TuneSection
from lateen.tuning.fitting import KernelFit
from lateen.tuning.page import PAGE, write_tune_page
from lateen.tuning.preparation import Preparation
from lateen.tuning.saving import save_tuned
from lateen.tuning.summary import JUDGED, card_results, verdict

_NO_KERNEL: dict[str, Any] = {"student": None, "target": None, "fit": None, "learned": None}
MODEL, RESULTS, TRAINING = "model", "results.json", "train"


@dataclass(frozen=True)
class Tuned:
    """What a tuning gives.

    Attributes:
        out: its folder; the model is in ``model``, the page in ``report.html``.
        results: the content of ``results.json``.
    """

    out: Path
    results: Mapping[str, Any]

    @property
    def model(self) -> AlignedModel:
        """The tuned model, loaded from its folder."""
        return open_model(self.out / MODEL)


def tune(
    model: str | Path | None = None,
    target: str | None = None,
    images: str | Path | None = None,
    *,
    out: str | Path,
    preset: str | None = None,
    recipe: str | Path | TuneRecipe | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Tuned:
    """Tune the image tower of a CLIP on images alone; its text side stays as it is.

    The tower's kernel matrix is pulled to that of a stronger vision encoder while embeddings are
    held near their start (KUEA, METHODS §2). Every checkpoint is measured on the data that
    ``eval.…`` names; a limit ``stop.…`` ends the training, and the last checkpoint that held is
    kept. A killed tuning goes on at its last checkpoint; a finished one is given back.

    Args:
        model: folder or hub id of an AlignedModel, a CLIP or a SigLIP.
        target: the stronger vision encoder.
        images: a folder, or any source with images.
        out: gets ``model``, in the form that it came in, ``results.json`` and ``report.html``.
        preset: a name of :data:`~lateen.tuning.config.TUNE_PRESETS`.
        recipe: YAML file with these and all settings; what is given here stands above it.
        settings: any key by dotted path: ``{"tune.weight": 10, "eval.captions": "dev.csv"}``.

    Raises:
        RecipeError: an unknown key or a value that does not fit, or something is not said.
        ModelError: there is no such model, or it has no image tower that can be tuned.
        TrainingError: a loss that is not finite, or ``out`` has a tuning with other settings.
        LateenError: any step's own errors.
    """
    given = {
        "model": None if model is None else str(model), "target.encoder": target,
        "images": None if images is None else str(images), "preset": preset, **(settings or {}),
    }  # fmt: skip
    plan = TuneRecipe.above(
        recipe, {key: value for key, value in given.items() if value is not None}
    )
    return run_tuning(plan, Path(out))


def run_tuning(plan: TuneRecipe, out: Path) -> Tuned:
    """:func:`tune` with a whole recipe."""
    refuse_foreign(out, "the folder of a tuning", (RESULTS,), (MODEL, TRAINING))
    begin = time.perf_counter()
    with plan.on_hardware(), process_group() as ranks, contextlib.ExitStack() as stack:
        stack.enter_context(use_hardware(precision=plan.precision))  # of the model that is tuned
        if ranks.leads:
            stack.enter_context(folder_lock(out))
            stack.enter_context(log_file(out / LOG))
        prepared = Preparation.of(plan)
        key = _key(prepared) if ranks.leads else ""
        if ranks.agree(ranks.leads and _is_done(prepared, key, out))[0]:
            log.info("%s is already tuned", out)
            found = read_json(out / RESULTS)
            if ranks.leads and not (out / PAGE).is_file():  # killed just before
                write_tune_page(found, out)
            return Tuned(out, found)
        outcome = (_replaced if plan.tune.method == "projection" else _trained)(
            prepared, out / TRAINING, ranks
        )
        if ranks.leads:
            results = _results(prepared, outcome, key, time.perf_counter() - begin)
            save_tuned(
                outcome.model, plan.model, out / MODEL, _record(prepared, outcome),
                prepared.start.trained_on, results["conditions"], card_results(results),
            )  # fmt: skip
            if prepared.start.carries_bank:
                log.info("the model's query bank is not that of the tuned one, and is left out "
                         "(lateen bank makes one)")  # fmt: skip
            write_json(out / RESULTS, results)
            write_tune_page(results, out)
        ranks.wait()  # for the results, which all processes return
    return Tuned(out, read_json(out / RESULTS))


@dataclass(frozen=True)
class _Outcome:
    """What training left.

    Attributes:
        model: the kept one.
        checks: of every checkpoint, the start first.
        judged: ids of the images that the checks are of.
        kept_step: whose model it is.
        steps: planned.
        kernel: both kernels, the fit, and the term at the start and at the end.
        log: of the steps.
    """

    model: AlignedModel
    checks: Sequence[Check]
    judged: Sequence[str]
    kept_step: int
    steps: int
    kernel: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]] = ()


def _trained(prepared: Preparation, folder: Path, ranks: Ranks) -> _Outcome:
    """Tune the tower."""
    settings = prepared.plan.tune
    module, kernel_fit = prepared.fitted()
    kernel = _described(module, kernel_fit, settings)
    steps = settings.epochs * math.ceil(len(prepared.train) / settings.batch)
    _tell_warmup(settings, steps)
    validation = _Validation(prepared, module.alignment)
    result = fit(
        lambda: module, lambda: prepared.source(ranks), settings, folder,
        identity=_identity(prepared), validation=validation, ranks=ranks,
        start=validation.start if ranks.leads else None,  # the others wait for its numbers
    )  # fmt: skip
    tuned = prepared.candidate(result.heads)
    if not ranks.leads:
        return _Outcome(tuned, [], [], result.best_step, steps, kernel)
    checks, rows = _read_metrics(result.metrics)
    checks = [validation.start, *checks]
    terms = {check["step"]: check["held_out"] for check in checks}
    kernel |= {"start": terms[0], "end": terms[result.best_step]}
    if isinstance(result.heads.alignment, KernelAlignment):
        kernel["student"] = result.heads.alignment.student.describe()
    judged = validation.compatibility.judged
    return _Outcome(tuned, checks, judged, result.best_step, steps, kernel, rows)


def _replaced(prepared: Preparation, folder: Path, ranks: Ranks) -> _Outcome:
    """The baseline ``projection``, in which nothing is trained."""
    load_checkpoint(folder / CHECKPOINT, _identity(prepared))  # of a tuning by another method
    train = prepared.train
    model = projection_model(
        prepared.start, prepared.target, train.targets(slice(None)), prepared.embeddings(train)
    )
    if not ranks.leads:
        return _Outcome(model, [], [], 1, 1, {})
    compatibility = _compatibility(prepared)
    check = compatibility.check(model, 1)
    return _Outcome(model, [compatibility.start, check], compatibility.judged, 1, 1, _NO_KERNEL)


def _compatibility(prepared: Preparation) -> Compatibility:
    """What measures checkpoints, the start measured already.

    Raises:
        UsageError: a limit on what is not measured.
    """
    plan = prepared.plan
    compatibility = Compatibility(prepared.start, plan.eval, prepared.held_out_dataset())
    plan.stop.require(compatibility.start)
    return compatibility


class _Validation:
    """Measures the tower at checkpoints; keeps the last that held, ends where a limit is broken.

    Args:
        prepared: the model and the data.
        alignment: the distance from the target as it is at the start.
    """

    def __init__(self, prepared: Preparation, alignment: Alignment) -> None:
        self._prepared, self._stop = prepared, prepared.plan.stop
        # The term goes by the start's kernel throughout: a learned one would move the yardstick.
        self._alignment = copy.deepcopy(alignment)

    @cached_property
    def compatibility(self) -> Compatibility:
        """What measures, the start measured already; of one process alone."""
        return _compatibility(self._prepared)

    @cached_property
    def start(self) -> Check:
        """The check of the start."""
        term = self._prepared.held_out_term(self._alignment)
        return {**self.compatibility.start, "held_out": term}

    def measure(self, module: TunedTower, step: int) -> Check:
        """The check of the tower as it is."""
        model = self._prepared.candidate(module)
        check = self.compatibility.check(model, step)
        term = self._prepared.held_out_term(self._alignment, model)
        left = term / self.start["held_out"] if self.start["held_out"] else math.nan
        log.info("step %d: %s", step, _in_short(check, left))
        return {**check, "held_out": term}

    def better(self, metrics: Check, best: Check | None) -> bool:
        """Whether no limit is broken: the last checkpoint that held is kept."""
        del best
        return self._stop.held(metrics)

    def enough(self, metrics: Check) -> bool:
        """Whether a limit is broken."""
        return not self._stop.held(metrics)


def _in_short(check: Check, left: float) -> str:
    """A check on one line of the log."""
    measures = [check["measures"][name] for name in JUDGED if name in check["measures"]]
    points = [f"{one['label']} {signed(one['difference']['value'])}" for one in measures]
    return ", ".join([f"kernel term {100 * left:.0f} % of the start on held-out images", *points])


def _described(
    module: TunedTower, kernel_fit: KernelFit | None, settings: TuneSection
) -> dict[str, Any]:
    """Both kernels and their fit, for the results."""
    alignment = module.alignment
    if kernel_fit is None or not isinstance(alignment, KernelAlignment):
        return {**_NO_KERNEL}
    log.info(
        "student's kernel fitted on %d images: mean squared difference %.4g (%.4g before the fit)",
        kernel_fit.count, kernel_fit.residual, kernel_fit.start_residual,
    )  # fmt: skip
    student = alignment.student.describe()
    return {
        "student": student, "student at the start": student, "target": alignment.target.describe(),
        "fit": {"residual": kernel_fit.residual, "before": kernel_fit.start_residual,
                "images": kernel_fit.count},
        "learned": settings.learn_kernel,
    }  # fmt: skip


def _tell_warmup(settings: TuneSection, steps: int) -> None:
    """Say where the warm-up that was asked for is longer than a tenth of the steps."""
    taken = settings.warmup_of(steps)
    if settings.warmup_steps and taken < settings.warmup_steps:
        log.warning(
            "a warm-up of %d steps is more than a tenth of %d: it takes %d", settings.warmup_steps,
            steps, taken,
        )  # fmt: skip


def _identity(prepared: Preparation) -> dict[str, Any]:
    """Everything that decides the result, as JSON values."""
    plan = prepared.plan
    return {
        "tune": plan.tune.model_dump(mode="json"), "data": prepared.key,
        "eval": plan.eval.model_dump(mode="json"), "stop": plan.stop.model_dump(mode="json"),
    }  # fmt: skip


def _key(prepared: Preparation) -> str:
    """Everything that decides the results, as a hash (64 hex digits): settings, model, target and
    images, and the evaluation data by content."""
    return content_key({**_identity(prepared), "judged on": judged_key(prepared.plan.eval)})


def _is_done(prepared: Preparation, key: str, out: Path) -> bool:
    """Whether a folder has this very tuning, whole. Results come after the model.

    Raises:
        TrainingError: it has another one.
    """
    if not (out / RESULTS).is_file():
        return False
    found = read_json(out / RESULTS)["conditions"].get("key")
    if found is None:  # of a lateen that kept none
        return False
    if found != key:
        # This says what differs, where a training is there to ask.
        load_checkpoint(out / TRAINING / CHECKPOINT, _identity(prepared))
        raise TrainingError(
            f"{out} has a tuning with other settings, model, images or evaluation data",
            "Choose another --out, or remove that folder.",
        )
    return (out / MODEL).is_dir()


def _read_metrics(path: Path) -> tuple[list[Check], list[dict[str, Any]]]:
    """The checks of a training, and the rows of its steps."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    checks = [row["validation"] for row in rows if "validation" in row]
    return checks, [row for row in rows if "validation" not in row]


def _record(prepared: Preparation, outcome: _Outcome) -> TrainedOn:
    """The images that the model was tuned on and, where there are limits, those they were of."""
    record = TrainedOn.of(prepared.train.pairs)
    if prepared.plan.stop.limits:
        unknown = np.zeros(len(outcome.judged), np.uint64)
        chosen_on = ImageGroup.of(outcome.judged, unknown)
        record = TrainedOn({**record.groups, "chosen_on": chosen_on})
    return record


def _results(prepared: Preparation, outcome: _Outcome, key: str, seconds: float) -> dict[str, Any]:
    """The content of ``results.json``."""
    plan, checks = prepared.plan, outcome.checks
    before = checks[0]["measures"]
    kept = next(check for check in checks if check["step"] == outcome.kept_step)
    last = checks[-1]
    why = plan.stop.broken(last) if len(checks) > 1 else []
    stopped = {"step": last["step"], "why": why} if why else None
    settings = plan.model_dump(mode="json", include={"preset", "tune", "stop"})
    sources = {"captions": plan.eval.captions or plan.eval.images, "classes": plan.eval.classes}
    return {
        "task": "tune", "method": plan.tune.method,
        "student": model_facts(prepared.start, plan.model),
        "target": {"encoder": Path(prepared.target.info.id).name,
                   "pooling": prepared.target.info.pooling},
        "images": len(prepared.train), "held_out": len(prepared.held_out),
        "before": before, "after": kept["measures"], "drift": kept["drift"],
        "measured_on": {name: Path(source).name for name, source in sources.items() if source},
        "kernel": outcome.kernel, "checkpoints": list(checks), "log": list(outcome.log),
        "steps": outcome.steps, "kept_step": outcome.kept_step, "stopped": stopped,
        "verdict": verdict(before, kept["measures"], kept_step=outcome.kept_step,
                           steps=outcome.steps, stopped=stopped),
        "settings": {**settings["tune"], "preset": plan.preset, "stop": settings["stop"]},
        "seconds": round(seconds, 1),
        "conditions": {
            **prepared.key, "key": key, "tuned": model_key(outcome.model), "seed": plan.tune.seed,
            "versions": library_versions(),
        },
    }  # fmt: skip
