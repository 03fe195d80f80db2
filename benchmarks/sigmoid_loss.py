"""The chunked losses against dense ones: value, gradient, time and extra memory in one run.

    python benchmarks/sigmoid_loss.py
    python benchmarks/sigmoid_loss.py --batch 4096 --dim 512 --rounds 5

The dense forms are those anyone would write first, in float32: the B x B logit matrix in one piece,
its loss, autograd. Each is run in rounds, turn by turn; the medians are compared. Memory is the
growth of the process's peak over what it holds before the step, each in a process of its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import in_process, peak_growth
from torch import Tensor

from lateen.training.losses import infonce_loss, sigmoid_loss

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def dense_sigmoid(image: Tensor, text: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """SigLIP's loss with the whole matrix."""
    logits = scale * image @ text.T + bias
    signs = 2 * torch.eye(len(image)) - 1
    return -F.logsigmoid(signs * logits).sum() / len(image)


def dense_infonce(image: Tensor, text: Tensor, scale: Tensor, _: Tensor) -> Tensor:
    """CLIP's loss with the whole matrix."""
    logits = scale * image @ text.T
    target = torch.arange(len(image))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


LOSSES: dict[str, tuple[Loss, Loss]] = {
    "sigmoid": (dense_sigmoid, lambda x, y, t, b: sigmoid_loss(x, y, t, b, normalization="batch")),
    "infonce": (dense_infonce, lambda x, y, t, _: infonce_loss(x, y, t)),
}


def leaves(batch: int, dim: int) -> list[Tensor]:
    """Unit image and text embeddings, t and b."""
    torch.manual_seed(0)
    rows = [F.normalize(torch.randn(batch, dim), dim=1) for _ in range(2)]
    return [t.requires_grad_() for t in [*rows, torch.tensor(20.0), torch.tensor(-10.0)]]


def run(loss: Loss, inputs: list[Tensor]) -> tuple[float, Tensor, Tensor]:
    """(seconds, loss, gradient with respect to the images)."""
    begin = time.perf_counter()
    value = loss(*inputs)
    gradients = torch.autograd.grad(value, inputs, allow_unused=True)
    assert gradients[0] is not None
    return time.perf_counter() - begin, value.detach(), gradients[0]


def memory(name: str, which: int, batch: int, dim: int) -> float:
    """Peak growth of one loss and its gradients, in bytes."""
    inputs = leaves(batch, dim)
    run(LOSSES[name][which], leaves(64, dim))  # libraries and their buffers
    return peak_growth(lambda: run(LOSSES[name][which], inputs))


def main() -> None:
    """Print a line per loss."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=8192, help="images (default: %(default)s)")
    parser.add_argument("--dim", type=int, default=1024, help="values (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    options = parser.parse_args()
    inputs = leaves(options.batch, options.dim)
    print(f"B = {options.batch}, d = {options.dim}, float32, {torch.get_num_threads()} threads")
    for name, (dense, chunked) in LOSSES.items():
        times: tuple[list[float], list[float]] = [], []
        for _ in range(options.rounds):
            results = [run(loss, inputs) for loss in (dense, chunked)]
            for taken, result in zip(times, results, strict=True):
                taken.append(result[0])
        (_, value, gradient), (_, ours, own) = results
        slow, fast = map(statistics.median, times)
        held = [in_process(memory, name, i, options.batch, options.dim) for i in range(2)]
        print(
            f"{name}: {slow / fast:.2f}x as fast (dense {slow:.2f} s, chunked {fast:.2f} s); "
            f"extra memory {held[1] / held[0]:.2f}x ({held[0] / 2**20:.0f} MB, "
            f"{held[1] / 2**20:.0f} MB); loss differs by {abs(ours / value - 1):.0e}, gradient by "
            f"{(own - gradient).norm() / gradient.norm():.0e}"
        )


if __name__ == "__main__":
    main()
