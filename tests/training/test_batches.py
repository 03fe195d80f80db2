from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pytest
import torch

from lateen.features import Pairs
from lateen.training.batches import BatchPlan, Part, shuffled
from lateen.training.loader import Loader
from lateen.training.ranks import Ranks

from .conftest import MakePairs


def plan(
    pairs: Pairs, *, batch: int = 4, epochs: int = 6, captions: int = 1, seed: int = 0
) -> BatchPlan:
    return BatchPlan(pairs, batch=batch, epochs=epochs, captions_per_image=captions, seed=seed)


def only(p: BatchPlan, step: int) -> Part:
    [part] = p.parts(step)
    return part


def used_captions(p: BatchPlan, epoch: int, column: int = 0) -> dict[int, list[int]]:
    """Which captions of each image an epoch uses."""
    used: dict[int, list[int]] = {}
    for step in range(epoch * p.steps_per_epoch, (epoch + 1) * p.steps_per_epoch):
        samples = p.samples(step)
        for c, pick in only(p, step).picks:
            if c == column:
                for sample, caption in zip(samples, pick, strict=True):
                    used.setdefault(int(sample), []).append(int(caption))
    return used


@pytest.mark.parametrize(
    ("images", "batch", "sizes"),
    [(10, 4, [4, 3, 3]), (8, 4, [4, 4]), (9, 8, [5, 4]), (3, 2, [2, 1])],
)
def test_an_epoch_sees_every_image_once_in_even_batches(
    make_pairs: MakePairs, images: int, batch: int, sizes: list[int]
) -> None:
    p = plan(make_pairs([1] * images), batch=batch)
    for epoch in range(2):
        parts = [p.samples(epoch * len(sizes) + i) for i in range(len(sizes))]
        assert [len(part) for part in parts] == sizes
        assert sorted(np.concatenate(parts)) == list(range(images))
    assert p.steps == 6 * len(sizes)


def test_epochs_and_seeds_have_orders_of_their_own(make_pairs: MakePairs) -> None:
    pairs = make_pairs([1] * 30)
    p, other = plan(pairs, batch=30), plan(pairs, batch=30, seed=1)
    orders = {tuple(p.samples(0)), tuple(p.samples(1)), tuple(other.samples(0))}
    assert len(orders) == 3


def test_batches_depend_on_the_step_alone(make_pairs: MakePairs) -> None:
    pairs = make_pairs([5] * 10)
    once, again = plan(pairs), plan(pairs)
    forward = [only(once, step) for step in range(once.steps)]
    for step in reversed(range(once.steps)):
        part = only(again, step)
        assert np.array_equal(part.samples, forward[step].samples)
        for (column, pick), (wanted, first) in zip(part.picks, forward[step].picks, strict=True):
            assert column == wanted
            assert np.array_equal(pick, first)


def test_every_caption_is_used_once_before_any_again(make_pairs: MakePairs) -> None:
    counts = [5, 1, 3, 2, 5]
    p = plan(make_pairs(counts), epochs=30)
    epochs = [used_captions(p, epoch) for epoch in range(30)]
    for image, count in enumerate(counts):
        for start in range(0, 30, count):
            turn = [epochs[e][image][0] for e in range(start, start + count)]
            assert sorted(turn) == list(range(count))


def test_images_start_at_different_captions(make_pairs: MakePairs) -> None:
    first = used_captions(plan(make_pairs([5] * 50)), 0)
    assert {captions[0] for captions in first.values()} == {0, 1, 2, 3, 4}


def test_several_captions_are_distinct_where_there_are_enough(make_pairs: MakePairs) -> None:
    counts = [5, 3, 4, 1, 2]
    p = plan(make_pairs(counts), captions=3, epochs=5)
    total: Counter[tuple[int, int]] = Counter()
    for epoch in range(5):
        for image, captions in used_captions(p, epoch).items():
            assert len(captions) == 3
            assert len(set(captions)) == min(3, counts[image])
            total.update((image, caption) for caption in captions)
    assert {total[0, caption] for caption in range(5)} == {3}  # 15 draws of 5 captions


def test_several_captions_take_turns_over_epochs_too(make_pairs: MakePairs) -> None:
    p = plan(make_pairs([6] * 5), captions=2, epochs=3)
    for image in range(5):
        used = [caption for epoch in range(3) for caption in used_captions(p, epoch)[image]]
        assert sorted(used) == [0, 1, 2, 3, 4, 5]


def test_batches_hold_each_image_with_its_own_captions(make_pairs: MakePairs) -> None:
    pairs = make_pairs([3] * 10, columns=2)
    p = plan(pairs, captions=2)
    batch = next(Loader(pairs).stream([only(p, 4)]))
    assert torch.equal(batch.image, pairs.image_features(p.samples(4)))
    assert len(batch.texts) == 4  # two captions of each of two columns
    index = batch.image[:, 0]
    assert (100 * index).round().tolist() == p.samples(4).tolist()
    for text, (_, pick) in zip(batch.texts, only(p, 4).picks, strict=True):
        torch.testing.assert_close(
            text[:, 0], index + torch.from_numpy(pick) / 10, atol=1e-4, rtol=0
        )


def test_a_batch_larger_than_the_data_is_all_of_it_and_said_so(
    make_pairs: MakePairs, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="lateen"):
        p = plan(make_pairs([1] * 5), batch=100, epochs=2)
    assert p.steps == 2
    assert sorted(p.samples(0)) == [0, 1, 2, 3, 4]
    assert "batch 100" in caplog.text
    assert "5 images" in caplog.text


@pytest.mark.parametrize(("count", "block"), [(1, 4), (10, 3), (64, 8), (100, 7), (5, 100)])
def test_a_block_shuffle_keeps_every_position_once_and_neighbours_together(
    count: int, block: int
) -> None:
    order = shuffled(count, block, np.random.default_rng(0))
    assert sorted(order) == list(range(count))
    jumps = np.flatnonzero(np.diff(order) != 1)
    assert len(jumps) <= -(-count // block)


def test_blocks_begin_elsewhere_in_every_epoch() -> None:
    random = np.random.default_rng(0)
    ends = [set(order[np.flatnonzero(np.diff(order) != 1)] % 8)
            for order in (shuffled(800, 8, random) for _ in range(20))]  # fmt: skip
    assert len(set.union(*ends)) > 5


def test_block_shuffle_moves_blocks_anywhere() -> None:
    # Where position 0 ends up is uniform: its mean over 400 orders is within four sigmas.
    random = np.random.default_rng(0)
    places = [int(np.flatnonzero(shuffled(1000, 10, random) == 0)[0]) for _ in range(400)]
    assert np.mean(places) == pytest.approx(500, abs=4 * 289 / 20)
    assert min(places) < 50
    assert max(places) > 950


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("micro", [None, 1, 3, 100])
def test_processes_and_micro_batches_divide_the_same_batch(
    make_pairs: MakePairs, size: int, micro: int | None
) -> None:
    pairs = make_pairs([3] * 11)
    whole = plan(pairs, batch=6)
    for step in range(whole.steps):
        parts = [
            part
            for rank in range(size)
            for part in BatchPlan(
                pairs, batch=6, epochs=6, captions_per_image=1, seed=0, micro_batch=micro,
                ranks=Ranks(rank, size),
            ).parts(step)
        ]  # fmt: skip
        together = only(whole, step)
        assert np.array_equal(np.concatenate([p.samples for p in parts]), together.samples)
        picks = np.concatenate([p.picks[0][1] for p in parts])
        assert np.array_equal(picks, together.picks[0][1])
        firsts = np.cumsum([0] + [p.rows.count for p in parts])
        assert [p.rows.first for p in parts] == firsts[:-1].tolist()
        assert max(p.rows.count for p in parts) <= (micro or 6)


def test_large_data_is_read_in_blocks_by_default(
    make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = make_pairs([1] * 10)
    assert plan(pairs).block == 1
    monkeypatch.setattr("lateen.training.batches.IN_MEMORY", 100)
    assert plan(pairs, batch=10**7).block == 2**20 // (12 * 4)
    assert plan(pairs, batch=640).block == 10
    assert plan(pairs, batch=4).block == 1
