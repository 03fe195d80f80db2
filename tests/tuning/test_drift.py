import pytest
import torch

from lateen.tuning.drift import Embedded, drift_of, paired


def test_a_drift_worked_by_hand():
    """(3, 4) to (4, 3): cosine 24/25, the same length 5, distance √2."""
    start, candidate = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    texts = torch.tensor([[1.0, 0.0], [0.8, 0.6]])

    drift = drift_of(start, candidate, texts)

    assert drift["images"] == 1
    assert drift["cosine"]["mean"] == pytest.approx(0.96)
    assert drift["norm"]["mean"] == pytest.approx(0)
    assert drift["bound"]["max"] == pytest.approx(2 * 2**0.5 / 5)
    # The texts' cosines go from 0.6 to 0.8, and from 0.96 to 1.
    assert drift["texts"] == 2
    assert drift["change"]["max"] == pytest.approx(0.2)
    assert drift["tightness"]["max"] == pytest.approx(0.2 / (2 * 2**0.5 / 5))
    assert drift["violations"] == 0


def test_mean_quantiles_and_extremes_are_over_images():
    start = torch.tensor([[1.0, 0.0]]).repeat(5, 1)
    angles = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4])
    lengths = torch.tensor([1.0, 1.1, 0.9, 1.0, 1.5])
    candidate = torch.stack([angles.cos(), angles.sin()], 1) * lengths[:, None]

    drift = drift_of(start, candidate)

    assert drift["cosine"]["mean"] == pytest.approx(angles.cos().mean().item())
    assert drift["cosine"]["q50"] == pytest.approx(angles[2].cos().item())
    assert drift["cosine"]["min"] == pytest.approx(angles[4].cos().item())
    # A quantile lies between two values in proportion: 5 % of four steps is a fifth of the first.
    low = 0.8 * angles[4].cos() + 0.2 * angles[3].cos()
    assert drift["cosine"]["q05"] == pytest.approx(low.item())
    assert drift["norm"] == pytest.approx({"mean": 0.1, "min": -0.1, "max": 0.5})
    assert drift["texts"] is drift["tightness"] is None


def test_nothing_moved():
    raw = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))

    drift = drift_of(raw, raw.clone(), torch.eye(4))

    assert set(drift["cosine"].values()) == {1.0}
    assert drift["norm"] == {"mean": 0, "min": 0, "max": 0}
    assert drift["bound"] == drift["change"] == {"mean": 0, "max": 0}
    assert drift["tightness"] is None  # there is no bound to divide by


@pytest.mark.parametrize("scale", [1e-3, 0.3, 10.0])
def test_no_text_moves_by_more_than_the_bound(scale):
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(200, 6, generator=generator)
    candidate = start + scale * torch.randn(200, 6, generator=generator)
    texts = torch.nn.functional.normalize(torch.randn(300, 6, generator=generator), dim=1)

    drift = drift_of(start, candidate, texts)

    cosines = [torch.nn.functional.normalize(each, dim=1) @ texts.T for each in (start, candidate)]
    change = (cosines[1] - cosines[0]).abs().amax(1)
    assert drift["change"] == pytest.approx(
        {"mean": change.mean().item(), "max": change.max().item()}, rel=1e-3
    )
    assert 0 < drift["tightness"]["mean"] <= drift["tightness"]["max"] <= 1
    assert drift["violations"] == 0


def test_texts_beyond_5000_are_sampled_evenly():
    start, candidate = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    texts = torch.zeros(10_001, 2)
    texts[-1] = torch.tensor([0.0, 1.0])  # the last is among them

    drift = drift_of(start, candidate, texts)

    assert drift["texts"] == 5000
    assert drift["change"]["max"] == pytest.approx(1)


def test_images_are_matched_by_id_set_by_set():
    before = [Embedded(["a", "b"], torch.tensor([[1.0], [2.0]])),
              Embedded(["a"], torch.tensor([[5.0]]))]  # fmt: skip
    after = [Embedded(["c", "b"], torch.tensor([[9.0], [3.0]])),
             Embedded(["a"], torch.tensor([[6.0]]))]  # fmt: skip

    start, candidate = paired(before, after)

    assert start.tolist() == [[2.0], [5.0]]
    assert candidate.tolist() == [[3.0], [6.0]]
