from __future__ import annotations

import sys

import pytest
import torch
import torch.nn.functional as F

from lateen.errors import DataError, LateenError
from lateen.metrics.retrieval import cross_ranks, mean_recall, retrieval, retrieval_ranks

# Three images and four captions; score[caption, image] is caption · image.
SCORES = torch.tensor(
    [
        [0.9, 0.1, 0.0],  # of image 0: rank 1
        [0.2, 0.6, 0.5],  # of image 1: rank 1
        [0.8, 0.3, 0.4],  # of image 2: rank 2
        [0.7, 0.1, 0.6],  # of image 1: rank 3
    ]
)
OWNER = torch.tensor([0, 1, 2, 1])


def test_ranks_of_a_three_by_four_worked_by_hand() -> None:
    identity = torch.eye(3)
    by_text = retrieval_ranks(SCORES, identity, OWNER[:, None])
    assert by_text.tolist() == [1, 1, 2, 3]
    # Image 0: 0.9 is its column's first. Image 1: its best is 0.6, the first. Image 2: 0.4 stands
    # behind 0.5 and 0.6.
    positives = torch.tensor([[0, -1], [1, 3], [2, -1]])
    assert retrieval_ranks(identity, SCORES, positives).tolist() == [1, 1, 3]


def test_recall_of_a_three_by_four_worked_by_hand() -> None:
    result = retrieval(torch.eye(3), SCORES, OWNER)
    assert result["text_to_image"] == {"R@1": 50, "R@5": 100, "R@10": 100, "median_rank": 1.5}
    assert result["image_to_text"] == {
        "R@1": pytest.approx(200 / 3), "R@5": 100, "R@10": 100, "median_rank": 1,
    }  # fmt: skip
    assert mean_recall(result, (10,)) == 100
    assert mean_recall(result) == pytest.approx((50 + 200 / 3 + 400) / 6)
    assert mean_recall(result, (1,)) == pytest.approx((50 + 200 / 3) / 2)
    assert mean_recall(result, (1, 5)) == pytest.approx((50 + 200 / 3 + 200) / 4)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_ranks_equal_those_of_a_full_sort(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 6, (40,), generator=generator)
    owner = torch.repeat_interleave(torch.arange(40), counts)
    owner = owner[torch.randperm(len(owner), generator=generator)]
    image = F.normalize(torch.randn(40, 8, generator=generator), dim=-1)
    text = F.normalize(image[owner] + torch.randn(len(owner), 8, generator=generator), dim=-1)
    scores = text @ image.T
    text_ranks = [
        scores[i].argsort(descending=True).tolist().index(owner[i]) + 1 for i in range(len(owner))
    ]
    image_ranks = []
    for i in range(40):
        order = scores[:, i].argsort(descending=True)
        image_ranks.append(int((owner[order] == i).nonzero()[0]) + 1)
    result = retrieval(image, text, owner, chunk=chunk)
    for direction, ranks in (("text_to_image", text_ranks), ("image_to_text", image_ranks)):
        for k in (1, 5, 10):
            expected = 100 * sum(rank <= k for rank in ranks) / len(ranks)
            assert result[direction][f"R@{k}"] == pytest.approx(expected)
        assert result[direction]["median_rank"] == torch.tensor(ranks).double().quantile(0.5)


def test_autocast_does_not_round_scores_to_ties() -> None:
    image = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.01]]), dim=-1)
    owner = torch.arange(2)
    with torch.autocast("cpu", torch.bfloat16):
        result = retrieval(image, image, owner)
    assert result["text_to_image"]["R@1"] == result["image_to_text"]["R@1"] == 100


def test_a_tie_counts_against_the_right_one_but_not_among_right_ones() -> None:
    query = torch.tensor([[1.0, 0.0]])
    targets = torch.tensor([[0.5, 0.0], [0.5, 0.0], [0.5, 0.0], [0.1, 0.0]])
    assert retrieval_ranks(query, targets, torch.tensor([[0]])).item() == 3
    assert retrieval_ranks(query, targets, torch.tensor([[0, 2]])).item() == 2
    assert retrieval_ranks(query, targets, torch.tensor([[0, 1, 2]])).item() == 1


def test_a_second_right_one_ranked_first_does_not_count_as_wrong() -> None:
    targets = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.7, 0.0]])
    query = torch.tensor([[1.0, 0.0]])
    assert retrieval_ranks(query, targets, torch.tensor([[1, 0]])).item() == 1


def test_collapsed_embeddings_score_nothing() -> None:
    same = F.normalize(torch.ones(30, 4), dim=-1)
    result = retrieval(same, same.repeat(2, 1), torch.arange(30).repeat(2))
    assert result["text_to_image"] == {"R@1": 0, "R@5": 0, "R@10": 0, "median_rank": 30}
    assert result["image_to_text"] == {"R@1": 0, "R@5": 0, "R@10": 0, "median_rank": 59}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("side", ["image", "text"])
def test_embeddings_that_are_not_finite_are_refused(value: float, side: str) -> None:
    sides = {"image": torch.eye(3), "text": torch.eye(3)}
    sides[side][1, 2] = value
    with pytest.raises(LateenError, match=r"1 of 3 embeddings hold NaN or infinity.* row 1"):
        retrieval(sides["image"], sides["text"], torch.arange(3))


@pytest.mark.parametrize(
    ("owner", "message"),
    [
        ([0, 1], "does not say"),
        ([0, 1, 3], "does not say"),
        ([0, 1, -1], "does not say"),
        ([0, 2, 2], "image 1 has no text"),
    ],
)
def test_owners_that_do_not_fit_are_refused(owner: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        retrieval(torch.eye(3), torch.eye(3), torch.tensor(owner))


@pytest.mark.parametrize("tile", [1, 5, 64, 4096])
def test_one_pass_gives_the_ranks_of_one_pass_for_each_direction(tile: int) -> None:
    generator = torch.Generator().manual_seed(1)
    owner = torch.cat([torch.arange(300), torch.randint(0, 300, (500,), generator=generator)])
    owner = owner[torch.randperm(800, generator=generator)]
    image = F.normalize(torch.randn(300, 16, generator=generator), dim=-1)
    image[250:] = image[:50]  # copies: ties with the right ones
    text = F.normalize(image[owner] + torch.randn(800, 16, generator=generator), dim=-1)
    text[700:] = text[:100]
    by_text, by_image = cross_ranks(image, text, owner, tile=tile)
    captions = torch.full((300, int(torch.bincount(owner).max())), -1)
    for i in range(300):
        mine = (owner == i).nonzero()[:, 0]
        captions[i, : len(mine)] = mine
    assert torch.equal(by_text, retrieval_ranks(text, image, owner[:, None]))
    assert torch.equal(by_image, retrieval_ranks(image, text, captions))


class Read:
    """Rows that are read a few at a time, as from a disk; it knows how many at most."""

    def __init__(self, rows: torch.Tensor) -> None:
        self.rows, self.most = rows, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, part: slice) -> torch.Tensor:
        rows = self.rows[part].clone()
        self.most = max(self.most, len(rows))
        return rows


@pytest.mark.parametrize("tile", [1, 7, 32])
def test_embeddings_that_are_read_as_they_are_needed_rank_like_those_in_memory(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules["lateen.metrics.retrieval"]  # the package has a function of that name
    monkeypatch.setattr(module, "_READ", 4)
    monkeypatch.setattr(module, "_CHECKED", 50)
    generator = torch.Generator().manual_seed(1)
    owner = torch.cat([torch.arange(150), torch.randint(0, 150, (250,), generator=generator)])
    owner = owner.sort().values
    image = F.normalize(torch.randn(150, 16, generator=generator), dim=-1)
    image[100:] = image[:50]
    text = F.normalize(image[owner] + torch.randn(400, 16, generator=generator), dim=-1)
    captions = torch.full((150, int(torch.bincount(owner).max())), -1)
    for i in range(150):
        own = (owner == i).nonzero()[:, 0]
        captions[i, : len(own)] = own
    stored = Read(image), Read(text)
    by_text, by_image = cross_ranks(*stored, owner, tile=tile)
    assert torch.equal(by_text, retrieval_ranks(text, image, owner[:, None]))
    assert torch.equal(by_image, retrieval_ranks(image, text, captions))
    assert max(side.most for side in stored) <= max(50, 4 * tile)
    image[120, 3] = torch.nan
    with pytest.raises(LateenError, match=r"1 of 150 embeddings hold NaN or infinity.* row 120"):
        cross_ranks(Read(image), Read(text), owner)


def test_collapsed_embeddings_score_nothing_across_tiles() -> None:
    same = F.normalize(torch.rand(1, 33), dim=-1).expand(701, -1)
    by_text, by_image = cross_ranks(same, same.repeat(2, 1), torch.arange(701).repeat(2), tile=96)
    assert by_text.unique().tolist() == [701]
    assert by_image.unique().tolist() == [2 * 701 - 1]
