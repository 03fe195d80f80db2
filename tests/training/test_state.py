from __future__ import annotations

from typing import Any

import torch

from lateen.training.config import HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads
from lateen.training.step import TrainState
from lateen.training.validation import RetrievalValidation


def start() -> TrainState:
    return TrainState(AlignmentHeads(HeadSection(dropout=0.0, dim=4), 5, 6), TrainSection())


def recall(value: float) -> dict[str, dict[str, float]]:
    recalls = dict.fromkeys(("R@1", "R@5", "R@10"), value)
    return {"text_to_image": recalls, "image_to_text": recalls}


def bias(tensors: Any) -> float:
    return float(tensors["logit_bias"])


def set_bias(state: TrainState, value: float) -> None:
    state.heads.logit_bias.data.fill_(value)


def keep_if_better(state: TrainState, value: float) -> None:
    metrics = recall(value)
    if RetrievalValidation(pairs=None).better(metrics, state.best_metrics):  # type: ignore[arg-type]
        state.keep(metrics)


def test_the_best_heads_survive_a_checkpoint() -> None:
    state = start()
    state.step = 3
    set_bias(state, 1.0)
    keep_if_better(state, 50.0)
    state.step = 4
    set_bias(state, 2.0)
    saved = state.checkpoint({}, finished=False)
    assert (bias(saved.best), bias(saved.heads)) == (1.0, 2.0)

    other = start()
    other.restore(saved)
    assert other.step == 4
    assert other.heads.logit_bias.item() == 2.0
    keep_if_better(other, 50.0)  # no better: an equal one does not replace it
    finished = other.checkpoint({}, finished=True)
    assert bias(finished.heads) == 1.0
    assert finished.best_step == 3
    assert finished.best_metrics == recall(50.0)


def test_a_better_validation_replaces_the_best_heads() -> None:
    state = start()
    for step, value in ((1, 50.0), (2, 60.0), (3, 55.0)):
        state.step = step
        set_bias(state, float(step))
        keep_if_better(state, value)
    finished = state.checkpoint({}, finished=True)
    assert (finished.best_step, bias(finished.heads)) == (2, 2.0)


def test_a_finished_checkpoint_holds_nothing_but_heads() -> None:
    state = start()
    for p in state.heads.parameters():
        p.grad = torch.ones_like(p)
    state.optimizer.step()
    assert state.checkpoint({}, finished=False).optimizer
    finished = state.checkpoint({}, finished=True)
    assert not finished.optimizer
    assert not finished.best
