from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lateen.errors import TrainingError
from lateen.features import Pairs, StoreRows
from lateen.training import loop
from lateen.training.canonical import canonical_maps
from lateen.training.config import HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads
from lateen.training.loop import CHECKPOINT, METRICS, TrainResult, new_heads, train
from lateen.training.ranks import Ranks
from lateen.training.step import StepParts, add_gradients
from lateen.training.transport import transport_loss
from lateen.training.unpaired import TaughtHeads, Unpaired

from .conftest import MakePairs

HEAD = HeadSection.model_validate({"name": "linear", "dim": 8, "dropout": 0.1})
SETTINGS = {
    "lr": 0.02, "batch": 16, "epochs": 4, "captions_per_image": 2, "validations": 2,
    "checkpoints": 4, "cca": 0.0, "precision": "float32",
    "unpaired": {"images": "here", "batch": 6},
}  # fmt: skip


def settings(**values: Any) -> TrainSection:
    return TrainSection.model_validate({**SETTINGS, **values})


def rows_of(pairs: Pairs, side: int) -> StoreRows:
    return StoreRows(*pairs.sources[side])


@pytest.fixture
def unpaired(make_pairs: MakePairs) -> Unpaired:
    """40 pairs, 30 images and 45 texts of other samples."""
    pairs = make_pairs([3, 1, 2, 5] * 10)
    images, texts = (make_pairs([3] * n, seed=n, name=str(n)) for n in (30, 15))
    return Unpaired(pairs, settings(), rows_of(images, 0), rows_of(texts, 1))


def run(unpaired: Unpaired, out: Path, head: HeadSection = HEAD) -> TrainResult[AlignmentHeads]:
    return train(unpaired.pairs, head=head, settings=unpaired.settings, out=out, trained=unpaired)


def with_settings(those: Unpaired, **values: Any) -> Unpaired:
    return Unpaired(those.pairs, settings(**values), those.images, those.texts)


def test_the_loss_is_that_of_the_pairs_and_of_the_plans_of_what_lies_below_them(
    unpaired: Unpaired,
) -> None:
    head = HEAD.model_copy(update={"dropout": 0.0, "text_dropout": 0.0})
    section = unpaired.settings
    source = unpaired.source(unpaired.pairs, section)
    [batch] = source.stream(source.parts(0))
    heads = new_heads(unpaired.pairs, head, section, unpaired)
    loss = add_gradients(heads, StepParts.of([batch]), section)

    plain = new_heads(unpaired.pairs, head, section)
    image = plain.embed_image(batch.image)
    texts = [plain.embed_text(text) for text in batch.texts]
    contrastive = plain.loss(image[:-6], [text[:-6] for text in texts], section)
    teacher = canonical_maps(unpaired.pairs, 8, (6000 / 40, 0.06 * 6000 / 40))
    below = torch.cat([text[-6:] for text in batch.texts])
    transport = transport_loss(
        image[-6:], torch.cat([text[-6:] for text in texts]),
        F.normalize(teacher[0](batch.image[-6:]), dim=1), F.normalize(teacher[1](below), dim=1),
    )  # fmt: skip
    torch.testing.assert_close(loss, (contrastive + transport).detach())
    (contrastive + transport).backward()  # type: ignore[no-untyped-call]
    for mine, theirs in zip(heads.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def test_every_unpaired_row_is_seen_once_before_any_is_seen_again(unpaired: Unpaired) -> None:
    plan = unpaired.plan
    steps = [plan.positions(step) for step in range(5)]
    images = np.concatenate([positions[0] for positions in steps])
    assert sorted(images) == list(range(30))
    texts = np.concatenate([np.concatenate(positions[1:]) for positions in steps])
    assert sorted(texts[:45]) == list(range(45))
    assert not np.array_equal(images, np.concatenate([plan.positions(s)[0] for s in range(5, 10)]))
    np.testing.assert_array_equal(plan.positions(3)[2], steps[3][2])


@pytest.mark.parametrize("side", ["images", "texts"])
def test_the_pairs_own_stand_for_a_side_that_is_not_given(unpaired: Unpaired, side: str) -> None:
    given = {"images": unpaired.images, "texts": unpaired.texts, side: None}
    half = Unpaired(unpaired.pairs, unpaired.settings, **given)
    own, other = half.plan.sources if side == "images" else half.plan.sources[::-1]
    assert own[0] is unpaired.pairs.sources[side == "texts"][0]
    assert other[0] is not unpaired.pairs.sources[side == "images"][0]


@pytest.mark.parametrize("kind", ["linear", "mlp", "sharelock"])
def test_a_divided_step_has_the_gradients_of_the_whole(unpaired: Unpaired, kind: str) -> None:
    gradients = []
    head = HeadSection.model_validate({"name": kind, "dim": 12, "width": 2})
    for micro in (None, 5):
        divided = with_settings(unpaired, micro_batch=micro)
        source = divided.source(divided.pairs, divided.settings)
        heads = new_heads(divided.pairs, head, divided.settings, divided)
        parts = StepParts(source.rows(0), source.stream([*source.parts(0)] * 2))
        add_gradients(heads, parts, divided.settings)
        gradients.append([p.grad for p in heads.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_features_on_disk_give_what_features_in_memory_give(
    unpaired: Unpaired, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = unpaired.source(unpaired.pairs, unpaired.settings)
    [held] = source.stream(source.parts(1))
    parts = source.parts(1)
    monkeypatch.setattr("lateen.training.batches.IN_MEMORY", 0)
    [read] = unpaired.source(unpaired.pairs, unpaired.settings).stream(parts)
    torch.testing.assert_close([held.image, *held.texts], [read.image, *read.texts])


def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(
    unpaired: Unpaired, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(unpaired, tmp_path / "whole")
    step = loop.training_step

    def killed(state: Any, *args: Any) -> Any:
        if state.step == 7:
            raise KeyboardInterrupt
        return step(state, *args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "training_step", killed)
        run(unpaired, tmp_path / "killed")
    again = run(unpaired, tmp_path / "killed")
    assert 0 < again.resumed_from < 7
    assert type(again.heads) is type(whole.heads) is AlignmentHeads
    for name in (CHECKPOINT, METRICS):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_is_unpaired_is_part_of_what_a_training_is_known_by(
    unpaired: Unpaired, tmp_path: Path
) -> None:
    run(unpaired, tmp_path / "out")
    assert run(unpaired, tmp_path / "out").skipped
    moved = with_settings(unpaired, unpaired={"images": "elsewhere", "batch": 6})
    assert run(moved, tmp_path / "out").skipped
    with pytest.raises(TrainingError, match="other settings or data"):
        run(Unpaired(unpaired.pairs, unpaired.settings, unpaired.images), tmp_path / "out")
    with pytest.raises(TrainingError, match="other settings or data"):
        run(with_settings(unpaired, unpaired={"images": "here", "weight": 2.0}), tmp_path / "out")


def test_values_by_which_earlier_trainings_are_found_do_not_name_what_they_did_not_know() -> None:
    assert "unpaired" not in TrainSection().model_dump(mode="json")
    assert TrainSection().deciding() == TrainSection().model_dump(mode="json")


def test_the_transport_loss_is_written_and_falls(unpaired: Unpaired, tmp_path: Path) -> None:
    run(with_settings(unpaired, epochs=20), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    values = [line["transport"] for line in lines if "loss" in line]
    assert all(map(math.isfinite, values))
    assert values[-1] < 0.7 * values[0]


def test_heads_embed_without_their_teacher_outside_training(unpaired: Unpaired) -> None:
    heads = new_heads(unpaired.pairs, HEAD, unpaired.settings, unpaired)
    assert isinstance(heads, TaughtHeads)
    features = unpaired.pairs.image_features(slice(3))
    assert heads.embed_image(features).shape == (3, 8 + 8)
    assert heads.eval().embed_image(features).shape == (3, 8)


def test_several_processes_are_refused(unpaired: Unpaired) -> None:
    with pytest.raises(TrainingError, match="2 processes cannot share unpaired"):
        unpaired.source(unpaired.pairs, unpaired.settings, Ranks(0, 2))


def test_unpaired_features_that_nothing_can_be_learned_from_are_refused(
    unpaired: Unpaired, make_pairs: MakePairs
) -> None:
    odd = make_pairs([1, 1], name="odd")
    same = StoreRows(odd.image, np.array([0, 0]))
    with pytest.raises(TrainingError, match="the same in all"):
        Unpaired(unpaired.pairs, unpaired.settings, same).source(unpaired.pairs, settings())
