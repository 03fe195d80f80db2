"""A step that does not fit into memory is done with less at a time, and is the same step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lateen.errors import TrainingError
from lateen.training import heads as heads_module
from lateen.training.batches import BatchRows
from lateen.training.config import HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads
from lateen.training.loader import StoreSource
from lateen.training.loop import new_state, run_steps
from lateen.training.ranks import Ranks
from lateen.training.step import Division, TrainState

from .conftest import MakePairs

SETTINGS = {"batch": 8, "epochs": 3, "lr": 0.01, "warmup": 0.0, "precision": "float32"}
SHORT = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")


def trained(pairs: Any, head: dict[str, Any], **settings: Any) -> tuple[list[Any], TrainState]:
    section = TrainSection.model_validate({**SETTINGS, **settings})
    torch.manual_seed(0)
    shape = HeadSection.model_validate({"dim": 4, "dropout": 0.5, "width": 2, **head})
    state = new_state(AlignmentHeads(shape, 12, 8), section)
    return list(run_steps(state, StoreSource(pairs, section), section)), state


def fits(
    most: int, monkeypatch: pytest.MonkeyPatch, error: Exception = SHORT, after: int = 0
) -> list[int]:
    """Let no head embed more images than that at a time, after so many that it may; sizes seen."""
    plain: Callable[..., Tensor] = AlignmentHeads.embed_image
    seen: list[int] = []

    def embed_image(self: AlignmentHeads, features: Tensor, rows: BatchRows) -> Tensor:
        seen.append(len(features))
        if len(features) > most and len(seen) > after:
            raise error
        return plain(self, features, rows)

    monkeypatch.setattr(AlignmentHeads, "embed_image", embed_image)
    return seen


@pytest.mark.parametrize("micro_batch", [None, 5])
@pytest.mark.parametrize("head", ["linear", "mlp", "glu"])
def test_parts_that_do_not_fit_are_halved_and_the_result_is_the_same(
    head: str, micro_batch: int | None, make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    pairs = make_pairs([1, 2] * 12)
    expected, whole = trained(pairs, {"name": head, "depth": 1}, micro_batch=micro_batch)
    seen = fits(2, monkeypatch, after=4)
    rows, state = trained(pairs, {"name": head}, micro_batch=micro_batch)

    assert max(seen[8:]) == 2
    assert state.step == whole.step == 9
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    for parameter, other in zip(state.heads.parameters(), whole.heads.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-3, atol=1e-5)
    said = [r.getMessage() for r in caplog.records if "out of memory in step" in r.getMessage()]
    assert 1 <= len(said) <= 2  # and not in every step
    assert "going on with 2 images" in said[-1]


def test_rows_of_the_logit_matrix_are_halved_too(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = make_pairs([1] * 16)
    expected, _ = trained(pairs, {})
    plain, sizes = heads_module.sigmoid_loss, []

    def sigmoid_loss(*arguments: Any, chunk_size: int, **options: Any) -> Tensor:
        sizes.append(chunk_size)
        if chunk_size > 2:
            raise MemoryError
        return plain(*arguments, chunk_size=chunk_size, **options)

    monkeypatch.setattr(heads_module, "sigmoid_loss", sigmoid_loss)
    rows, _ = trained(pairs, {})
    assert sizes == [1024, 4, 2, *[2] * 5]
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-4)


def test_running_statistics_count_a_step_once(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, head = make_pairs([1] * 16), {"name": "sharelock", "dim": None}
    section = TrainSection.model_validate({**SETTINGS, "batch": 16, "epochs": 1})
    states = []
    for chunk in (1024, 4):
        torch.manual_seed(0)
        heads = AlignmentHeads(HeadSection.model_validate({"width": 2, **head}), 12, 8)
        states.append(new_state(heads, section))
        plain = heads_module.sigmoid_loss

        def sigmoid_loss(
            *arguments: Any, chunk_size: int, most: int = chunk, plain: Any = plain, **options: Any
        ) -> Tensor:
            if chunk_size > most:  # after the batch was embedded
                raise MemoryError
            return plain(*arguments, chunk_size=chunk_size, **options)

        with monkeypatch.context() as patch:
            patch.setattr(heads_module, "sigmoid_loss", sigmoid_loss)
            list(run_steps(states[-1], StoreSource(pairs, section), section))
    buffers = [dict(state.heads.named_buffers()) for state in states]
    assert any("running_mean" in name for name in buffers[0])
    for name, buffer in buffers[0].items():
        torch.testing.assert_close(buffers[1][name], buffer)


def test_what_fits_in_no_way_is_a_clear_error_and_changes_nothing(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits(0, monkeypatch)
    with pytest.raises(TrainingError, match=r"step of 8 images does not fit.*train\.batch"):
        trained(make_pairs([1] * 16), {})


def test_another_fault_is_not_taken_for_want_of_memory(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fits(0, monkeypatch, RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        trained(make_pairs([1] * 16), {})
    assert seen == [8]


def test_division_ends_at_single_rows() -> None:
    rows = [BatchRows(0, 0, 0, 5), BatchRows(0, 0, 5, 3)]
    halves = [Division(1, 1024)]
    with pytest.raises(TrainingError):
        while True:
            halves.append(halves[-1].halved(rows))
    assert halves[1:] == [Division(2, 4), Division(4, 2), Division(5, 1)]


def test_of_several_processes_none_divides_alone(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits(0, monkeypatch)
    pairs, section = make_pairs([1] * 16), TrainSection.model_validate(SETTINGS)
    state = new_state(AlignmentHeads(HeadSection(dim=4), 12, 8), section)
    with pytest.raises(TrainingError, match=r"not enough memory for a step.*train\.micro_batch"):
        list(run_steps(state, StoreSource(pairs, section), section, Ranks(size=2)))
