"""Neighbours found in float32 and decided in float64 are those of float64 alone, ties included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from feature_toys import OnlySlices, normal
from torch import Tensor

from lateen.metrics import nearest
from lateen.metrics.nearest import nearest_neighbours, paired_cosines, top_similar


@pytest.fixture(autouse=True)
def _float32_however_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_PAYS", 0)


def _on_grid(x: Tensor) -> Tensor:
    return (F.normalize(x.double(), dim=1) * 2.0**26).round() / 2.0**26


def _plain(x: Tensor, y: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The plain twin: all cosines in float64, stably sorted."""
    cosines = _on_grid(x) @ _on_grid(x if y is None else y).T
    if y is None:
        cosines.fill_diagonal_(-2)
    order = cosines.argsort(dim=1, descending=True, stable=True)[:, :k]
    return cosines.gather(1, order), order


def _near_ties(n: int, d: int, distance: float, seed: int = 0) -> Tensor:
    """Twelve directions, each with many rows that differ from it by no more than ``distance``."""
    which = torch.randint(0, 12, (n,), generator=torch.Generator().manual_seed(seed))
    rows = normal(12, d, seed)[which].double()
    return rows + distance * normal(n, d, seed + 1).double()


def _copies_among_others(n: int, d: int) -> Tensor:
    """Rows that are mostly different, with twenty copies of one, of another length, among them."""
    x = normal(n, d)
    x[::17] = x[3] * torch.linspace(0.1, 9, len(x[::17]))[:, None]
    return x


def _one_way(n: int, d: int) -> Tensor:
    """Rows that all point nearly the same way, as those of many encoders do."""
    return normal(1, d) + 1e-3 * normal(n, d, 1)


CASES: dict[str, Tensor] = {
    "unrelated": normal(300, 40),
    "one way": _one_way(300, 40),
    "ties below float32": _near_ties(300, 40, 1e-9),
    "ties at float32": _near_ties(300, 40, 1e-7),
    "ties above float32": _near_ties(300, 40, 1e-5),
    "copies": _copies_among_others(300, 40),
    "signs": normal(300, 9).sign(),
    "all the same": torch.ones(300, 5),
    "zeros": torch.cat([torch.zeros(30, 7), normal(270, 7)]),
    "by likeness": torch.polar(torch.ones(300), torch.linspace(0, 3, 300)).view(torch.float32)
    .view(300, 2),
    "very long and very short": normal(300, 12) * 10.0 ** torch.linspace(-18, 18, 300)[:, None],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("k", "chunk"), [(1, 64), (5, 300), (5, 37), (40, 128), (299, 100)])
def test_neighbours_equal_those_of_float64(case: str, k: int, chunk: int) -> None:
    x = CASES[case]
    cosines, indices = top_similar(OnlySlices(x), None, k, chunk)
    expected = _plain(x, None, k)
    assert torch.equal(indices, expected[1])
    assert torch.equal(cosines, expected[0])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("k", "chunk"), [(1, 64), (7, 41)])
def test_neighbours_in_a_gallery_equal_those_of_float64(case: str, k: int, chunk: int) -> None:
    gallery = CASES[case]
    queries = torch.cat([gallery[:50], normal(30, gallery.shape[1], 5).to(gallery)])
    cosines, indices = top_similar(queries, gallery, k, chunk)
    expected = _plain(queries, gallery, k)
    assert torch.equal(indices, expected[1])
    assert torch.equal(cosines, expected[0])


def test_float64_alone_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = CASES["ties at float32"]
    expected = top_similar(x, None, 9, 64)
    monkeypatch.setattr(nearest, "_float32_is_float32", lambda _: False)
    monkeypatch.setattr(nearest, "_decide", lambda *_: pytest.fail("float32 was used"))
    found = top_similar(x, None, 9, 64)
    assert all(map(torch.equal, found, expected))


def test_where_float32_would_not_pay_float64_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    x = CASES["copies"]
    monkeypatch.setattr(nearest, "_PAYS", 100)
    monkeypatch.setattr(nearest, "_decide", lambda *_: pytest.fail("float32 was used"))
    assert torch.equal(nearest_neighbours(x, 4, chunk=64), _plain(x, None, 4)[1])
    with pytest.raises(pytest.fail.Exception, match="float32 was used"):
        nearest_neighbours(x, 3, chunk=64)


@pytest.fixture
def left_to_float64(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets, of every search, the number of rows that float32 could not decide."""
    seen: list[int] = []
    real = nearest._decide

    def decide(*given: Any) -> Tensor:
        undecided = real(*given)
        seen.append(len(undecided))
        return undecided

    monkeypatch.setattr(nearest, "_decide", decide)
    return seen


def test_only_rows_with_more_near_ties_than_room_are_compared_with_all(
    left_to_float64: list[int],
) -> None:
    x = normal(2000, 64)
    nearest_neighbours(x, 10)
    nearest_neighbours(_one_way(2000, 64), 10)
    assert left_to_float64 == [0, 0]
    x[:100] = x[0] + 1e-9 * normal(100, 64, 3)
    assert torch.equal(nearest_neighbours(x, 10), _plain(x, None, 10)[1])
    # Those, and the few others that are near them and so cannot tell them apart either.
    assert 100 <= left_to_float64[2] < 150


@pytest.mark.parametrize("case", ["unrelated", "one way", "copies", "ties at float32"])
def test_scores_in_float32_err_by_no_more_than_the_margin_and_by_some(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = CASES[case]
    mean = _on_grid(x).mean(0)
    exact = _on_grid(x) @ _on_grid(x).T - mean @ mean  # which scores leave out
    seen: list[tuple[float, float]] = []

    class Watched(nearest._Candidates):
        def __init__(self, queries: int, k: int, margin: Tensor) -> None:
            super().__init__(queries, k, margin)
            self.margin = margin

        def offer(self, start: int, scores: Tensor, first: int) -> None:
            true = exact[start : start + len(scores), first : first + scores.shape[1]]
            error = (scores - true).abs() / self.margin[start : start + len(scores), None]
            error = error[scores.isfinite()]
            seen.append((float(error.max()), float(self.margin.max())))
            super().offer(start, scores, first)

    monkeypatch.setattr(nearest, "_Candidates", Watched)
    nearest_neighbours(x, 3, chunk=100)
    errors, margins = zip(*seen, strict=True)
    assert 0 < max(errors) < 1
    assert max(margins) < 1e-5


def test_without_the_margin_near_ties_would_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    x = CASES["ties at float32"]
    monkeypatch.setattr(nearest._Centred, "margin", lambda self, _: torch.zeros_like(self.lengths))
    assert not torch.equal(nearest_neighbours(x, 5), _plain(x, None, 5)[1])


def test_cosines_of_pairs_equal_the_product_of_all_rows() -> None:
    x, y = normal(50, 9), normal(70, 9, 1)
    indices = torch.randint(0, 70, (50, 4), generator=torch.Generator().manual_seed(0))
    indices[3, 1] = -1
    found = paired_cosines(nearest.Units(x, 16), nearest.Units(y, 16), indices)
    expected = (_on_grid(x) @ _on_grid(y).T).gather(1, indices.clamp(min=0))
    expected[3, 1] = -torch.inf
    assert torch.equal(found, expected)
