"""Linear layers by oneDNN, against torch's own."""

import pytest
import torch
from torch.nn.functional import linear

from lateen import device
from lateen.device import forward_pass, matmul

CPU = torch.device("cpu")


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what oneDNN is given."""
    seen: list[tuple[int, ...]] = []
    original = device._onednn_linear

    def spy(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return original(x, *rest)

    monkeypatch.setattr(device, "_onednn_linear", spy)
    return seen


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


@pytest.mark.skipif(not device._ONEDNN, reason="this torch has no oneDNN")
@pytest.mark.parametrize("shape", [(5, 8), (2, 3, 8), (1, 1, 8), (8,)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_is_onednns_and_gives_what_torchs_gives(
    products: list[tuple[int, ...]], shape: tuple[int, ...], bias: bool
) -> None:
    layer, x = torch.nn.Linear(8, 4, bias=bias), random(*shape)
    expected = layer(x).detach()
    with forward_pass(CPU, "float32"):
        found = layer(x)
    assert products == [shape]
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_slices_and_transposes_are_taken_as_they_are(products: list[tuple[int, ...]]) -> None:
    x, weight = random(8, 6, 4).transpose(0, 1)[:, ::2], random(4, 5).T
    expected = linear(x, weight)
    with forward_pass(CPU, "float32"):
        torch.testing.assert_close(linear(x, weight), expected, rtol=1e-5, atol=1e-6)


def test_what_does_not_suit_onednn_is_torchs_own(products: list[tuple[int, ...]]) -> None:
    weight, x = random(4, 8), random(2, 8)
    with forward_pass(CPU, "float32"):
        assert linear(x[:0], weight).shape == (0, 4)
        assert linear(x.double(), weight.double()).dtype == torch.float64
        assert torch.equal(linear(x, weight=weight, bias=None), x @ weight.T)
    with forward_pass(CPU, "bfloat16"):
        assert linear(x, weight).dtype == torch.bfloat16
    linear(x, weight)
    assert products == []


def test_a_matrix_product_is_that_of_torch() -> None:
    a, b = random(7, 8), random(8, 3)
    torch.testing.assert_close(matmul(a, b), a @ b, rtol=1e-5, atol=1e-6)
    assert matmul(a[:0], b).shape == (0, 3)
