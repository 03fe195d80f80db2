from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lateen.errors import DataError, UsageError
from lateen.metrics import (
    RecallHits,
    bootstrap_difference,
    bootstrap_recall,
    mean_recall,
    recall_hits,
    retrieval,
)
from lateen.metrics.resampling import (
    Median,
    Tally,
    drawn_scores,
    draws,
    interval_of,
    percentile_interval,
)

# Three images and four captions, as in test_retrieval; score[caption, image].
SCORES = torch.tensor(
    [
        [0.9, 0.1, 0.0],  # of image 0: rank 1
        [0.2, 0.6, 0.5],  # of image 1: rank 1
        [0.8, 0.3, 0.4],  # of image 2: rank 2
        [0.7, 0.1, 0.6],  # of image 1: rank 3
    ]
)


def _embeddings(noise: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    owner = torch.repeat_interleave(torch.arange(60), torch.arange(60) % 3 + 1)
    image = F.normalize(torch.randn(60, 8, generator=generator), dim=-1)
    spread = noise * torch.randn(len(owner), 8, generator=generator)
    return image, F.normalize(image[owner] + spread, dim=-1), owner


def test_hits_of_a_three_by_four_worked_by_hand() -> None:
    hits = recall_hits(torch.eye(3), SCORES, torch.tensor([0, 1, 2, 1]), (1, 2, 5))
    assert hits.captions == [1, 2, 1]
    assert hits.text_to_image == {"R@1": [1, 1, 0], "R@2": [1, 1, 1], "R@5": [1, 2, 1]}
    assert hits.image_to_text == {"R@1": [1, 1, 0], "R@2": [1, 1, 0], "R@5": [1, 1, 1]}


@pytest.mark.parametrize("cutoff", [1, 5, 10])
def test_hits_add_up_to_the_recall_of_retrieval(cutoff: int) -> None:
    embeddings = _embeddings(0.8)
    hits, result = recall_hits(*embeddings), retrieval(*embeddings)
    by_text = sum(hits.text_to_image[f"R@{cutoff}"]) / sum(hits.captions)
    by_image = sum(hits.image_to_text[f"R@{cutoff}"]) / 60
    assert 50 * (by_text + by_image) == pytest.approx(mean_recall(result, (cutoff,)))


def test_hits_come_back_from_json() -> None:
    hits = recall_hits(*_embeddings(0.8))
    assert RecallHits(**json.loads(json.dumps(hits.as_dict()))) == hits


def test_the_interval_equals_that_of_images_drawn_one_by_one() -> None:
    hits = recall_hits(*_embeddings(0.8))
    counts = np.concatenate(list(draws(60, 300, 5)))
    scores = []
    for row in counts.astype(int):
        chosen = np.repeat(np.arange(60), row)
        assert len(chosen) == 60
        texts = sum(hits.captions[i] for i in chosen)
        by_text = sum(hits.text_to_image["R@5"][i] for i in chosen) / texts
        by_image = sum(hits.image_to_text["R@5"][i] for i in chosen) / 60
        scores.append(50 * (by_text + by_image))
    expected = np.quantile(scores, [0.05, 0.95])
    found = bootstrap_recall(hits, cutoff=5, resamples=300, level=0.9, seed=5)
    assert found == pytest.approx(tuple(expected))


def test_the_interval_is_about_as_wide_as_theory_says() -> None:
    """400 images of one caption, half of them hits, alike both ways: sd is 50 / √400 = 2.5."""
    half = [i % 2 for i in range(400)]
    hits = RecallHits([1] * 400, {"R@10": half}, {"R@10": half})
    low, high = bootstrap_recall(hits, resamples=4000)
    assert low == pytest.approx(50 - 1.96 * 2.5, abs=0.4)
    assert high == pytest.approx(50 + 1.96 * 2.5, abs=0.4)
    assert bootstrap_recall(hits) == bootstrap_recall(hits)
    assert bootstrap_recall(hits) != bootstrap_recall(hits, seed=1)
    narrow = bootstrap_recall(hits, level=0.5)
    assert 50 - 2.5 < narrow[0] < narrow[1] < 50 + 2.5


def test_a_difference_is_paired() -> None:
    half = [i % 2 for i in range(100)]
    one_more = [1, *half[1:]]
    a = RecallHits([1] * 100, {"R@10": one_more}, {"R@10": one_more})
    b = RecallHits([1] * 100, {"R@10": half}, {"R@10": half})
    low, high = bootstrap_difference(a, b)
    # The one image that differs is drawn 0 to about 3 times; unpaired, ±14 points were usual.
    assert low == 0
    assert high == pytest.approx(3, abs=1.01)
    assert bootstrap_difference(b, a) == (-high, -low)
    assert bootstrap_difference(a, a) == (0, 0)


def test_a_clear_difference_excludes_0() -> None:
    good, bad = recall_hits(*_embeddings(0.3)), recall_hits(*_embeddings(1.5))
    assert bootstrap_difference(good, bad, cutoff=1)[0] > 0
    assert bootstrap_difference(bad, good, cutoff=1)[1] < 0


def test_draws_do_not_depend_on_how_many_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(draws(10, 25, 0)))
    monkeypatch.setattr("lateen.metrics.resampling._BLOCK", 40)
    parts = list(draws(10, 25, 0))
    assert [len(part) for part in parts] == [4] * 6 + [1]
    assert np.array_equal(np.concatenate(parts), whole)
    assert (whole.sum(1) == 10).all()


def test_faults_are_refused() -> None:
    hits = recall_hits(*_embeddings(0.8))
    with pytest.raises(UsageError, match="no hits for R@3, only for R@1, R@5, R@10"):
        bootstrap_recall(hits, cutoff=3)
    with pytest.raises(UsageError, match="level 95 is no level"):
        percentile_interval(np.arange(5.0), 95)
    other = RecallHits([1] * 3, {"R@10": [1] * 3}, {"R@10": [1] * 3})
    with pytest.raises(DataError, match="hits on 60 and on 3 images"):
        bootstrap_difference(hits, other)
    with pytest.raises(DataError, match="image 1 has no text"):
        recall_hits(torch.eye(3), SCORES, torch.tensor([0, 2, 2, 0]))


def test_a_tally_is_the_mean_over_groups_of_what_was_drawn() -> None:
    """Against images that are drawn one by one, with all their rows."""
    generator = np.random.default_rng(0)
    unit, group = generator.integers(0, 30, 200), generator.integers(0, 4, 200)
    tries = generator.integers(1, 5, 200)
    hits = generator.integers(0, tries + 1)
    counts = np.concatenate(list(draws(30, 20, seed=3)))
    found = Tally(unit, hits, tries, group, scale=10).drawn(counts)
    for drawn, score in zip(counts, found, strict=True):
        images = [image for image, times in enumerate(drawn) for _ in range(int(times))]
        rows = np.concatenate([np.flatnonzero(unit == image) for image in images])
        shares = [
            hits[rows[group[rows] == g]].sum() / tries[rows[group[rows] == g]].sum()
            for g in range(4)
        ]
        assert score == pytest.approx(10 * np.mean(shares))


def test_a_group_that_was_not_drawn_does_not_count() -> None:
    tally = Tally(np.array([0, 1]), np.array([1, 0]), group=np.array([0, 1]))
    assert tally.drawn(np.array([[2.0, 0], [0, 2], [1, 1]])).tolist() == [100, 0, 50]


def test_a_median_is_that_of_what_was_drawn() -> None:
    generator = np.random.default_rng(0)
    unit, values = generator.integers(0, 9, 25), generator.integers(1, 40, 25)
    counts = np.concatenate(list(draws(9, 40, seed=0)))
    found = Median(unit, values).drawn(counts)
    for drawn, score in zip(counts, found, strict=True):
        assert score == np.median(np.repeat(values, drawn[unit].astype(int)))


def test_of_all_or_nothing_the_interval_is_the_exact_binomial_one() -> None:
    """25 of 25: the share p of which 25 in a row happen in one of 40 cases has p^25 = 0.025."""
    for hits, expected in ((np.ones(25), (100 * 0.025 ** (1 / 25), 100.0)),
                           (np.zeros(25), (0.0, 100 - 100 * 0.025 ** (1 / 25)))):  # fmt: skip
        tally = Tally(np.arange(25), hits)
        scores = drawn_scores({"all": tally}, 25)["all"]
        assert interval_of(tally, scores, 25, 0.95) == pytest.approx(expected)


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """The share of 200 throws of a coin that falls on one side in 30 of 100."""
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        tally = Tally(np.arange(200), generator.random(200) < 0.3)
        scores = drawn_scores({"all": tally}, 200, resamples=400)["all"]
        low, high = interval_of(tally, scores, 200, 0.95)
        held += low <= 30 <= high
    assert 0.91 < held / 300 < 0.98
