from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from kernel_toys import cosine, gaussian, polynomial, vectors
from torch import Tensor

from lateen.errors import TrainingError
from lateen.tuning import kernel_alignment_loss
from lateen.tuning.kernels import Cosine, Gaussian, Kernel, Polynomial
from lateen.tuning.objective import alignment_bound, drift_penalty, patch_alignment_loss

POLYNOMIALS = (Polynomial(0.0032, 0.191623), Polynomial(1 / 28))


# -- the released numbers -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    folder = Path(os.environ.get("LATEEN_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
    if not (folder / "kuea.npz").is_file():
        pytest.skip("no golden values: set LATEEN_GOLDEN to their folder")
    with np.load(folder / "kuea.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "kernels"),
    [
        ("poly", POLYNOMIALS),
        ("gauss", (Gaussian(8.7), Gaussian(15.8))),
        ("cos", (Cosine(), Cosine())),
    ],
)
def test_losses_are_the_released_ones(
    golden: dict[str, Tensor], name: str, kernels: tuple[Kernel, Kernel]
) -> None:
    loss = kernel_alignment_loss(golden["s"], golden["t"], *kernels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(golden[name].item(), abs=1e-6)
    exact = kernel_alignment_loss(golden["s"].double(), golden["t"].double(), *kernels)
    assert exact.item() == pytest.approx(golden[name].item(), abs=1e-7)


@pytest.mark.real
def test_the_drift_is_the_released_one(golden: dict[str, Tensor]) -> None:
    drift = drift_penalty(golden["s"], golden["orig"])
    assert drift.item() == pytest.approx(golden["reg"].item(), abs=1e-6)


# -- kernels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("diagonal", ["include", "exclude"])
def test_losses_are_those_of_plain_numpy(diagonal: Literal["include", "exclude"]) -> None:
    x, y = vectors(8, 5), vectors(8, 3, seed=1)
    cases = [
        (Polynomial(0.3, 0.7, 2, False), Gaussian(2),
         polynomial(x.numpy(), 0.3, 0.7, 2, False) - gaussian(y.numpy(), 2)),
        (Cosine(), Polynomial(0.3), cosine(x.numpy()) - polynomial(y.numpy(), 0.3, 1, 3, True)),
    ]  # fmt: skip
    for student_kernel, target_kernel, difference in cases:
        pairs = [
            difference[i, j] ** 2
            for i in range(8)
            for j in range(8)
            if diagonal == "include" or i != j
        ]
        loss = kernel_alignment_loss(x, y, student_kernel, target_kernel, diagonal=diagonal)
        assert loss.item() == pytest.approx(np.mean(pairs), rel=1e-6)


def test_a_normalised_kernel_is_always_right_on_the_diagonal() -> None:
    x, y = vectors(8, 5), vectors(8, 3, seed=1)
    whole = kernel_alignment_loss(x, y, Cosine(), Gaussian(2))
    others = kernel_alignment_loss(x, y, Cosine(), Gaussian(2), diagonal="exclude")
    assert (whole / others).item() == pytest.approx(7 / 8)


def test_under_autocast_the_loss_is_that_of_float32() -> None:
    x, y = vectors(8, 5).bfloat16(), vectors(8, 3, seed=1).bfloat16()
    expected = kernel_alignment_loss(x.float(), y.float(), *POLYNOMIALS)
    with torch.autocast("cpu", torch.bfloat16):
        loss = kernel_alignment_loss(x, y, *POLYNOMIALS)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, expected)


@pytest.mark.parametrize("diagonal", ["include", "exclude"])
def test_gradients_are_those_of_differences(diagonal: Literal["include", "exclude"]) -> None:
    kernel = Polynomial(0.3, 0.7).double().learn()
    x, y, start = vectors(5, 4), vectors(5, 3, seed=1), vectors(5, 4, seed=2)
    tokens, targets = vectors(8, 4).reshape(2, 4, 4), vectors(18, 3).reshape(2, 9, 3)

    def losses(x: Tensor, tokens: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        return (
            kernel_alignment_loss(x, y, kernel, Gaussian(2), diagonal=diagonal),
            patch_alignment_loss(tokens, targets, kernel, Cosine(), diagonal=diagonal),
            drift_penalty(x, start),
            drift_penalty(x, start, space="unit"),
        )

    inputs = (x.requires_grad_(), tokens.requires_grad_(), *kernel.parameters())
    assert torch.autograd.gradcheck(losses, inputs)


def test_a_batch_that_has_nothing_to_compare() -> None:
    x = vectors(4, 5)
    with pytest.raises(TrainingError, match=r"1 image has nothing to compare\. Raise the batch"):
        kernel_alignment_loss(x[:1], x[:1], *POLYNOMIALS)
    with pytest.raises(TrainingError, match=r"shapes \[4, 5\] and \[3, 5\]"):
        kernel_alignment_loss(x, x[1:], *POLYNOMIALS)
    with pytest.raises(TrainingError, match=r"shapes \[5\] and \[4, 5\]"):
        kernel_alignment_loss(x[0], x, *POLYNOMIALS)


# -- patches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("diagonal", ["include", "exclude"])
def test_patches_are_compared_within_each_image(diagonal: Literal["include", "exclude"]) -> None:
    x, y = vectors(3 * 7, 5).reshape(3, 7, 5), vectors(3 * 7, 4, seed=1).reshape(3, 7, 4)
    each = [
        kernel_alignment_loss(a, b, *POLYNOMIALS, diagonal=diagonal)
        for a, b in zip(x, y, strict=True)
    ]
    loss = patch_alignment_loss(x, y, *POLYNOMIALS, diagonal=diagonal)
    torch.testing.assert_close(loss, torch.stack(each).mean())


@pytest.mark.parametrize("finer", ["student", "target"])
def test_the_finer_grid_is_averaged_to_the_coarser(finer: str) -> None:
    """4 × 4 patches to 2 × 2: each of four is the mean of 2 × 2 neighbours."""
    fine, coarse = vectors(2 * 16, 5).reshape(2, 16, 5), vectors(2 * 4, 5, seed=1).reshape(2, 4, 5)
    cells = [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    pooled = torch.stack([fine[:, cell].mean(1) for cell in cells], 1)
    sides, expected = ((fine, coarse), (pooled, coarse))
    if finer == "target":
        sides, expected = sides[::-1], expected[::-1]
    torch.testing.assert_close(
        patch_alignment_loss(*sides, *POLYNOMIALS), patch_alignment_loss(*expected, *POLYNOMIALS)
    )
    low = [side.bfloat16() for side in sides]
    assert patch_alignment_loss(low[0], low[1], *POLYNOMIALS).dtype == torch.float32


def test_patches_that_cannot_be_compared() -> None:
    x = vectors(2 * 16, 5).reshape(2, 16, 5)
    for sides in ((x, x[:, :12]), (x[:, :12], x)):
        with pytest.raises(TrainingError, match="12 patches are no square grid"):
            patch_alignment_loss(*sides, *POLYNOMIALS)
    with pytest.raises(TrainingError, match="1 patch has nothing to compare"):
        patch_alignment_loss(x, x[:, :1], *POLYNOMIALS)
    for sides in ((x, x[:1]), (x[:0], x[:0]), (x[0], x[0])):
        with pytest.raises(TrainingError, match="not of the same images"):
            patch_alignment_loss(*sides, *POLYNOMIALS)


# -- drift ----------------------------------------------------------------------------------------


def test_drift_worked_by_hand() -> None:
    """Differences (0, 2) and (3, 0): squares 4 and 9. At length 1 the first turns by 90°: 2."""
    now, before = torch.tensor([[1.0, 1], [4, 0]]), torch.tensor([[1.0, -1], [1, 0]])
    assert drift_penalty(now, before).item() == 6.5
    assert drift_penalty(now, before, space="unit").item() == pytest.approx(1)
    torch.testing.assert_close(alignment_bound(now, before), torch.tensor([8**0.5, 1.5]))
    low = drift_penalty(now.bfloat16(), before)
    assert (low.dtype, low.item()) == (torch.float32, 6.5)


@pytest.mark.parametrize("size", [0.01, 0.3, 3])
def test_no_text_s_cosine_changes_by_more_than_the_bound(size: float) -> None:
    before, texts = vectors(50, 4), vectors(400, 4, seed=1)
    now = before + size * vectors(50, 4, seed=2)
    stretched = torch.cat([now[:25], 2 * before[25:]])
    texts = torch.cat([texts, stretched, before])  # those that see a turn best, too

    def cosines(f: Tensor) -> Tensor:
        found: Tensor = (f @ texts.mT) / (f.norm(dim=1)[:, None] * texts.norm(dim=1))
        return found

    moved = (cosines(stretched) - cosines(before)).abs().amax(1)
    bound = alignment_bound(stretched, before)
    assert bool((moved <= bound + 1e-12).all())
    assert bool((moved[:25] > 0.1 * bound[:25]).any())


def test_embeddings_that_are_not_of_one_space() -> None:
    x = vectors(4, 5)
    for function in (drift_penalty, alignment_bound):
        with pytest.raises(TrainingError, match=r"shapes \[4, 5\] and \[4, 4\]"):
            function(x, x[:, 1:])
        with pytest.raises(TrainingError, match="not of the same images"):
            function(x[:0], x[:0])
    assert alignment_bound(torch.zeros(1, 3), torch.zeros(1, 3)).tolist() == [0]
