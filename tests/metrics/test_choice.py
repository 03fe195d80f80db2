import itertools

import pytest
import torch

from lateen.errors import DataError, LateenError
from lateen.metrics.choice import (
    PAIR_CHANCE,
    choice_hits,
    cosines,
    five_numbers,
    pair_hits,
    pair_scores,
    percent,
)

SOLVED = [[0.9, 0.1], [0.2, 0.8]]
TEXT_ONLY = [[0.5, 0.4], [0.6, 0.7]]  # image 1 is nearer to both captions
IMAGE_ONLY = [[0.5, 0.6], [0.4, 0.7]]  # caption 1 is nearer to both images
NEITHER = [[0.1, 0.9], [0.8, 0.2]]


def test_pairs_worked_by_hand():
    hits = pair_hits(torch.tensor([SOLVED, TEXT_ONLY, IMAGE_ONLY, NEITHER]))
    assert hits.text.tolist() == [True, True, False, False]
    assert hits.image.tolist() == [True, False, True, False]
    assert hits.group.tolist() == [True, False, False, False]
    assert pair_scores(hits) == {"text": 50, "image": 50, "group": 25}


def test_pairs_are_those_of_the_equations_taken_one_by_one():
    scores = torch.rand(500, 2, 2, generator=torch.Generator().manual_seed(0))
    hits = pair_hits(scores)
    for row, ((a, b), (c, d)) in enumerate(scores.tolist()):  # s(I0,T0) s(I0,T1) s(I1,T0) s(I1,T1)
        assert bool(hits.text[row]) == (a > b and d > c)
        assert bool(hits.image[row]) == (a > c and d > b)
        assert bool(hits.group[row]) == (a > b and d > c and a > c and d > b)


def test_a_tie_in_one_comparison_loses_the_pair_and_all_ties_lose_everything():
    assert pair_scores(pair_hits(torch.full((3, 2, 2), 0.3))) == dict.fromkeys(PAIR_CHANCE, 0)
    one = pair_hits(torch.tensor([[[0.9, 0.1], [0.8, 0.8]]]))
    assert (one.text.item(), one.image.item()) == (False, True)


def test_chance_is_the_share_of_all_orders_of_four_scores():
    orders = [torch.tensor(order).view(2, 2) for order in itertools.permutations(range(4))]
    found = pair_scores(pair_hits(torch.stack(orders).float()))
    assert found == pytest.approx(PAIR_CHANCE)


def test_the_right_caption_must_beat_every_other():
    absent = -torch.inf
    scores = torch.tensor([[3.0, 1, 2], [1, 2, 0], [2, 2, 1], [1, 0, absent]])
    assert choice_hits(scores).tolist() == [True, False, False, True]
    assert percent(choice_hits(scores)) == 50


@pytest.mark.parametrize("scores", [torch.zeros(0, 2, 2), torch.zeros(3, 2), torch.zeros(2, 2, 3)])
def test_no_pairs_or_another_shape_stops(scores: torch.Tensor):
    with pytest.raises(DataError, match="are not"):
        pair_hits(scores)


@pytest.mark.parametrize("scores", [torch.zeros(0, 2), torch.zeros(3, 1), torch.zeros(3)])
def test_no_choice_stops(scores: torch.Tensor):
    with pytest.raises(DataError, match="at least 2"):
        choice_hits(scores)


def test_nan_stops_and_is_counted_by_example():
    with pytest.raises(LateenError, match="1 of 2 examples have NaN"):
        pair_hits(torch.tensor([SOLVED, [[torch.nan, torch.nan], [0, 0]]]))
    with pytest.raises(LateenError, match="NaN"):
        choice_hits(torch.tensor([[0.0, torch.nan]]))


def test_cosines_row_by_row_whatever_the_length():
    first, second = torch.tensor([[3.0, 0], [1, 1]]), torch.tensor([[0.5, 0], [0, 2]])
    assert cosines(first, second).tolist() == pytest.approx([1, 0.5**0.5])


def test_five_numbers_worked_by_hand():
    found = five_numbers(torch.tensor([0.0, 4, 1, 2, 3]))
    assert found == {"min": 0, "q25": 1, "median": 2, "q75": 3, "max": 4, "mean": 2}
    with pytest.raises(DataError, match="no values"):
        five_numbers(torch.tensor([]))
