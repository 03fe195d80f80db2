import itertools
import math

import pytest

from lateen.report.chance import median_rank, most_by_chance, recall_at_k, top_k


def test_one_relevant_candidate_is_found_in_k_of_n_random_rankings():
    assert recall_at_k(1, 1000) == pytest.approx(0.1)
    assert recall_at_k(10, 1000) == pytest.approx(1.0)
    assert recall_at_k(5, 4) == 100.0


def test_two_relevant_among_four_worked_by_hand():
    assert recall_at_k(1, 4, relevant=2) == pytest.approx(50.0)
    assert recall_at_k(2, 4, relevant=2) == pytest.approx(100 * 5 / 6)  # 1 − (2/4)(1/3)
    assert recall_at_k(3, 4, relevant=2) == 100.0


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_recall_equals_the_share_of_all_rankings_that_find_one(k):
    rankings = list(itertools.permutations(range(6)))
    found = sum(min(ranking.index(item) for item in (0, 1, 2)) < k for ranking in rankings)
    assert recall_at_k(k, 6, relevant=3) == pytest.approx(100 * found / len(rankings))


def test_an_average_number_of_captions_lies_between_its_neighbours():
    assert recall_at_k(10, 4900, 4) < recall_at_k(10, 4900, 4.9) < recall_at_k(10, 4900, 5)


@pytest.mark.parametrize(
    ("candidates", "relevant", "rank"),
    [(1000, 1, 500), (5, 1, 3), (1, 1, 1), (4, 2, 1), (6, 2, 2), (5000, 5, 647)],
)
def test_median_rank_is_where_half_of_the_queries_are_found(candidates, relevant, rank):
    assert median_rank(candidates, relevant) == rank
    assert recall_at_k(rank, candidates, relevant) >= 50 - 1e-9
    assert rank == 1 or recall_at_k(rank - 1, candidates, relevant) < 50


def test_top_k_of_equally_likely_classes():
    assert top_k(1, 10) == 10.0
    assert top_k(5, 10) == 50.0
    assert top_k(5, 3) == 100.0


@pytest.mark.parametrize("expected", [0.001, 0.05, 0.5, 5.0, 50.0])
def test_what_chance_explains_of_rare_events(expected):
    most = most_by_chance(expected)
    up_to = math.fsum(
        math.exp(k * math.log(expected) - expected - math.lgamma(k + 1))
        for k in range(math.floor(most) + 1)
    )
    assert 0 <= 1 - up_to < 1e-4  # of Poisson's distribution
    assert most_by_chance(0) == 0
