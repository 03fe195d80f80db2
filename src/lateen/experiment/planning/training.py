"""How long a recipe's training takes, by doing a few of its steps on features that are made up."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from lateen.encoders import TextEncoder
from lateen.experiment.recipe import Recipe
from lateen.features import Pairs
from lateen.features.rates import PATIENCE, Cost
from lateen.training.batches import feature_bytes, in_memory
from lateen.training.canonical import canonical_maps, canonical_share
from lateen.training.checkpoint import optimizer_tensors
from lateen.training.config import TrainSection
from lateen.training.heads import FROZEN, AlignmentHeads, complete
from lateen.training.inputs import check_several
from lateen.training.lit import TrainedText
from lateen.training.loader import StoreSource
from lateen.training.loop import new_heads, new_state, run_steps
from lateen.training.step import TrainState
from lateen.training.validation import validate

_STEPS = 12
_ENOUGH = 1.0  # seconds; steps that are over in a moment are timed for at least so long
_FEW = 1024  # images of a validation, or of a pass for canonical directions, that is timed
_LONGEST = 2048  # features up to which canonical directions are computed to be timed


@dataclass(frozen=True)
class Training:
    """What training costs, in time and memory.

    Attributes:
        costs: its items, with those of measuring retrieval at the end.
        steps: of the whole training.
        features_held: bytes of features held in memory.
        parameters: bytes of the heads' weights, and of a text encoder that is trained.
        optimizer: bytes of the optimiser's states.
        model: bytes of the weights that are saved.
        unknown: sentences on what is not included.
    """

    costs: list[Cost]
    steps: int
    features_held: int
    parameters: int
    optimizer: int
    model: int
    unknown: list[str]


def measure_training(
    train: Pairs, splits: Mapping[str, Pairs], chosen_on: str, plan: Recipe,
    tower: TextEncoder | None,
) -> Training:  # fmt: skip
    """Do a few steps and a validation on pairs as large as the recipe's.

    Args:
        train: to train on.
        splits: those that retrieval is measured on at the end.
        chosen_on: the one that chooses the step.
        plan: head and settings.
        tower: a text encoder that is trained with its head.

    Raises:
        TrainingError: the recipe's head does not fit the encoders or the settings.
    """
    settings = plan.train
    check_several(train)
    trained = FROZEN if tower is None else TrainedText(tower)
    dims = trained.dims(train)
    head = complete(plan.head, *dims)
    share = canonical_share(settings, head, *trained.frozen_dims(train))
    heads = new_heads(train, head, settings, trained)
    state = new_state(heads, settings)
    costs = [] if settings.epochs == 0 else [_steps(state, StoreSource(train, settings), settings)]
    retrieval = {name: _retrieval(heads, pairs, tower) for name, pairs in splits.items()}
    validations = min(settings.validations, sum(c.count for c in costs)) + (share > 0)
    costs.append(Cost.timed("validate", "train", validations, "validation", retrieval[chosen_on]))
    unknown = ["writing checkpoints"]
    if settings.unpaired is not None:
        unknown.append("unpaired images and texts, encoded and in every step (train.unpaired)")
    if share > 0 and max(dims) <= _LONGEST:
        seconds = _canonical(train, head.dim or 0)
        costs.append(Cost.timed("canonical directions", "train", 1, "pass", seconds))
    elif share > 0:
        unknown.append(f"canonical directions of {max(dims)} features (train.cca)")
    if plan.evaluate.retrieval and tower is None:  # a trained encoder's features are encoded anew
        total = sum(retrieval.values())
        costs.append(
            Cost.timed("retrieval", "evaluate", len(retrieval), "split", total / len(retrieval))
        )
    parameters = sum(p.nbytes for p in heads.parameters())
    beside = min(head.dim or 0, *dims) / (head.dim or 1) if share > 0 else 0.0
    return Training(
        costs, costs[0].count if settings.epochs else 0,
        feature_bytes(train.sources) if in_memory(train.sources) else 0,
        parameters, sum(t.nbytes for t in optimizer_tensors(state.optimizer).values()),
        round(parameters * (1 + beside)), unknown,
    )  # fmt: skip


def _steps(state: TrainState, source: StoreSource, settings: TrainSection) -> Cost:
    """All steps, by the first few: the very first, in which memory is taken and networks may be
    compiled, is counted once, as it is. A tenth of the others is faster than the low end of the
    range, and a tenth slower than its high end."""
    seconds: list[float] = []
    with contextlib.closing(run_steps(state, source, settings)) as steps:
        begin = time.perf_counter()
        for _ in steps:
            seconds.append(time.perf_counter() - begin)
            limit = PATIENCE if len(seconds) <= _STEPS else _ENOUGH
            if len(seconds) > 1 and sum(seconds) > limit:
                break
            begin = time.perf_counter()
    first, later = seconds[0], sorted(seconds[1:] or seconds)
    tenth = len(later) // 10
    low, middle, high = (
        first + (source.steps - 1) * each
        for each in (later[tenth], median(later), later[-1 - tenth])
    )
    return Cost("train the heads", "train", middle, low, high, source.steps, "step")


def _retrieval(heads: AlignmentHeads, pairs: Pairs, tower: TextEncoder | None) -> float:
    """Seconds to embed pairs and to rank them, measured on few of them where they are many.

    Ranking grows with the square of their number. Embedding, which is most of it where a text
    encoder is run, does not.
    """
    few = min(len(pairs), _FEW)
    seconds = _seconds(lambda: validate(heads, pairs.take(np.arange(few))))
    return seconds * (len(pairs) / few) ** (1 if tower else 2)


def _canonical(pairs: Pairs, dim: int) -> float:
    """Seconds of canonical directions: what does not depend on the number of images, and a pass
    over all, by two passes over few."""
    few = min(len(pairs), _FEW)
    seconds = _seconds(lambda: canonical_maps(pairs.take(np.arange(few)), dim))
    more = min(len(pairs), 4 * few)
    if more == few:
        return seconds
    longer = _seconds(lambda: canonical_maps(pairs.take(np.arange(more)), dim))
    return seconds + max(0.0, longer - seconds) * (len(pairs) - few) / (more - few)


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin
