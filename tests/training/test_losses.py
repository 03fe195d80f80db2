from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lateen.training.losses import infonce_loss, sigmoid_loss

Inputs = tuple[Tensor, list[Tensor], Tensor, Tensor]
B, D = 7, 5


def inputs(columns: int, dtype: torch.dtype = torch.float64, size: int = B) -> Inputs:
    generator = torch.Generator().manual_seed(columns)

    def unit() -> Tensor:
        raw = torch.randn(size, D, generator=generator, dtype=dtype)
        return F.normalize(raw, dim=-1).requires_grad_()

    scale = torch.tensor(13.0, dtype=dtype, requires_grad=True)
    bias = torch.tensor(-4.0, dtype=dtype, requires_grad=True)
    return unit(), [unit() for _ in range(columns)], scale, bias


def dense_sigmoid(
    image: Tensor, texts: list[Tensor], scale: Tensor, bias: Tensor, normalization: str,
    positives: str,
) -> Tensor:  # fmt: skip
    total = image.new_zeros(())
    for text in texts:
        z = scale * image @ text.T + bias
        sign = 2 * torch.eye(len(image), dtype=image.dtype) - 1
        total = total - F.logsigmoid(sign * z).sum()
    total = total / (len(image) if normalization == "batch" else len(image) ** 2)
    return total / len(texts) if positives == "mean" else total


def dense_infonce(image: Tensor, texts: list[Tensor], scale: Tensor, positives: str) -> Tensor:
    target = torch.arange(len(image))
    total = image.new_zeros(())
    for text in texts:
        z = scale * image @ text.T
        total = total + (F.cross_entropy(z, target) + F.cross_entropy(z.T, target)) / 2
    return total / len(texts) if positives == "mean" else total


def gradients(loss: Tensor, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    # An upstream factor, so that a backward that ignored its argument would show.
    return torch.autograd.grad(3 * loss, leaves)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("normalization", ["batch", "batch_squared"])
@pytest.mark.parametrize("positives", ["sum", "mean"])
def test_sigmoid_loss_and_all_gradients_equal_the_dense_ones(
    chunk: int, columns: int, normalization: Any, positives: Any
) -> None:
    image, texts, scale, bias = inputs(columns)
    loss = sigmoid_loss(
        image, texts, scale, bias, normalization=normalization, positives=positives,
        chunk_size=chunk,
    )  # fmt: skip
    plain = dense_sigmoid(image, texts, scale, bias, normalization, positives)
    torch.testing.assert_close(loss, plain)
    leaves = [image, *texts, scale, bias]
    torch.testing.assert_close(gradients(loss, leaves), gradients(plain, leaves))


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("columns", [1, 3])
@pytest.mark.parametrize("positives", ["sum", "mean"])
def test_infonce_loss_and_all_gradients_equal_the_dense_ones(
    chunk: int, columns: int, positives: Any
) -> None:
    image, texts, scale, _ = inputs(columns)
    loss = infonce_loss(image, texts, scale, positives=positives, chunk_size=chunk)
    plain = dense_infonce(image, texts, scale, positives)
    torch.testing.assert_close(loss, plain)
    leaves = [image, *texts, scale]
    torch.testing.assert_close(gradients(loss, leaves), gradients(plain, leaves))


@pytest.mark.parametrize("scale", [20.0, 30.0])
def test_the_value_of_a_small_infonce_loss_is_that_of_float64(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    image = F.normalize(torch.randn(512, 256, generator=generator), dim=1)
    text = F.normalize(image + 0.05 * torch.randn(512, 256, generator=generator), dim=1)
    loss = infonce_loss(image, text, torch.tensor(scale), chunk_size=100)
    exact = dense_infonce(image.double(), [text.double()], torch.tensor(scale).double(), "sum")
    assert 0 < exact < 1e-3  # ten digits below the logits, of which float32 has seven
    torch.testing.assert_close(loss.double(), exact, rtol=2e-6, atol=0)


def test_sigmoid_gradients_pass_gradcheck() -> None:
    image, (text,), scale, bias = inputs(1)
    assert torch.autograd.gradcheck(
        lambda *x: sigmoid_loss(*x, chunk_size=3), (image, text, scale, bias)
    )


def test_infonce_gradients_pass_gradcheck() -> None:
    image, (text,), scale, _ = inputs(1)
    assert torch.autograd.gradcheck(lambda *x: infonce_loss(*x, chunk_size=3), (image, text, scale))


def test_sigmoid_loss_of_a_two_by_two_worked_by_hand() -> None:
    # z = 2 x·y − 1 is [[1, −1], [−1, 1]] for identical orthogonal embeddings: positives cost
    # softplus(−1) each, negatives softplus(−1) each.
    one = torch.eye(2)
    softplus = math.log1p(math.exp(-1))
    scale, bias = torch.tensor(2.0), torch.tensor(-1.0)
    by_batch = sigmoid_loss(one, one, scale, bias, normalization="batch")
    assert by_batch.item() == pytest.approx(4 * softplus / 2)
    assert sigmoid_loss(one, one, scale, bias).item() == pytest.approx(softplus)
    # Swapped captions: positives have z = −1, negatives z = 1, each costing softplus(1).
    swapped = sigmoid_loss(one, one.flip(0), scale, bias)
    assert swapped.item() == pytest.approx(math.log1p(math.e))


def test_infonce_loss_of_a_two_by_two_worked_by_hand() -> None:
    one, scale = torch.eye(2), torch.tensor(2.0)
    # Every row and column of logits is (2, 0) with the first one right.
    assert infonce_loss(one, one, scale).item() == pytest.approx(math.log1p(math.exp(-2)))


def test_captions_are_contrasted_within_their_own_column() -> None:
    image, texts, scale, bias = inputs(2)
    together = sigmoid_loss(image, texts, scale, bias)
    apart = [sigmoid_loss(image, text, scale, bias) for text in texts]
    torch.testing.assert_close(together, apart[0] + apart[1])


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_losses_are_stable_at_extreme_logits(scale: float) -> None:
    one = torch.eye(4, D)
    t = torch.tensor(scale, requires_grad=True)
    swapped = infonce_loss(one, one.roll(1, 0), t)
    assert swapped.item() == pytest.approx(math.log(math.exp(scale) + 3))
    sigmoid = sigmoid_loss(one, one, t, torch.tensor(-1000.0), normalization="batch")
    assert sigmoid.item() == pytest.approx(1000 - scale)


def test_a_frozen_side_gets_no_gradient_and_the_other_the_right_one() -> None:
    image, (text,), scale, bias = inputs(1)
    frozen = image.detach()
    (grad,) = torch.autograd.grad(sigmoid_loss(frozen, text, scale, bias), [text])
    (plain,) = torch.autograd.grad(
        dense_sigmoid(frozen, [text], scale, bias, "batch_squared", "sum"), [text]
    )
    torch.testing.assert_close(grad, plain)


@pytest.mark.parametrize("kind", ["sigmoid", "infonce"])
def test_under_autocast_the_loss_stays_near_and_gradients_float32(kind: str) -> None:
    image, (text,), scale, bias = inputs(1, torch.float32, size=64)

    def loss() -> Tensor:
        if kind == "sigmoid":
            return sigmoid_loss(image, text, scale, bias, chunk_size=10)
        return infonce_loss(image, text, scale, chunk_size=10)

    full = loss()
    with torch.autocast("cpu", torch.bfloat16):
        low = loss()
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, full, rtol=0.02, atol=0)
    grad_full = torch.autograd.grad(full, image)[0]
    grad_low = torch.autograd.grad(low, image)[0]
    assert grad_low.dtype == torch.float32
    assert F.cosine_similarity(grad_low.flatten(), grad_full.flatten(), dim=0) > 0.999
    assert not torch.equal(grad_low, grad_full)


class LargestTensor(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.numel())
        return result


@pytest.mark.parametrize(
    "loss",
    [
        lambda image, text, t: sigmoid_loss(image, text, t, t - 20, chunk_size=8),
        lambda image, text, t: infonce_loss(image, text, t, chunk_size=8),
    ],
)
def test_no_tensor_is_larger_than_a_chunk_and_none_of_it_is_kept(
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> None:
    size = 96
    image, (text,), scale, _ = inputs(1, torch.float32, size)
    kept: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    largest = LargestTensor()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), largest:
        loss(image, text, scale).backward()
    assert largest.numel == 8 * size
    assert max(kept) == size * D
