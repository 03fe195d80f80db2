"""A training step at SAIL's shapes against a plain dense step of the released recipe.

    python benchmarks/train_step.py                    # batch 2,048: time and ratios
    python benchmarks/train_step.py --memory 32768     # a step at the paper's batch: peak memory
    python benchmarks/train_step.py --device cuda --batch 32768

Shapes: 2048-d image features, two caption columns of 4096-d features, glu x 8 heads, d = 1024,
sigmoid loss over B², Lion. The dense step is written here the way the released recipe computes it:
plain layers, the concatenated B x 2B logit matrix, autograd, an optimiser that goes over every
tensor operation by operation; in float32, and under autocast.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from measure import in_process, resident
from torch import Tensor, nn

from lateen.experiment.recipe import Recipe
from lateen.training.batches import Batch, BatchRows
from lateen.training.heads import AlignmentHeads
from lateen.training.step import StepParts, TrainState, training_step

IMAGE, TEXT, COLUMNS = 2048, 4096, 2
RECIPE = Recipe.build({"preset": "sail"})


def heads() -> AlignmentHeads:
    """Fresh heads."""
    torch.manual_seed(0)
    return AlignmentHeads(RECIPE.head, IMAGE, TEXT)


def features(batch: int) -> list[Tensor]:
    """Image features and both columns' text features, as stored."""
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(batch, dim, generator=generator).half() for dim in [IMAGE] + [TEXT] * COLUMNS
    ]


class DenseStep:
    """The plain step."""

    def __init__(self, device: torch.device, low: bool) -> None:
        self.heads, self.device, self.low = heads().to(device), device, low
        self.momenta = {p: torch.zeros_like(p) for p in self.heads.parameters()}

    def __call__(self, data: list[Tensor]) -> float:
        image, *columns = (tensor.to(self.device) for tensor in data)
        texts = torch.cat(columns)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.low):
            x = self.embed(self.heads.vision, image)
            y = self.embed(self.heads.text, texts)
            logits = self.heads.scale * x @ y.T + self.heads.logit_bias
            signs = (2 * torch.eye(len(x), device=self.device) - 1).repeat(1, len(columns))
            loss = -F.logsigmoid(signs * logits).mean()
        self.heads.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():
            for parameter, momentum in self.momenta.items():
                assert parameter.grad is not None
                parameter.mul_(1 - 1e-5 * 1e-4)
                update = momentum.clone().mul_(0.9).add_(parameter.grad, alpha=0.1).sign_()
                parameter.add_(update, alpha=-1e-5)
                momentum.mul_(0.99).add_(parameter.grad, alpha=0.01)
        return loss.item()

    @staticmethod
    def embed(head: nn.Module, raw: Tensor) -> Tensor:
        """One head with nothing but torch's layers."""
        h, network = head.norm(raw.float()), head.network
        gated = F.relu6(network.f1(h).clamp(-1000, 1000)) * network.f2(h).clamp(-1000, 1000)
        return F.normalize(network.g(gated).float(), dim=-1)


class OurStep:
    """lateen's step."""

    def __init__(self, device: torch.device, low: bool, micro: int | None = None) -> None:
        precision = "bfloat16" if low else "float32"
        self.settings = RECIPE.train.model_copy(update={"precision": precision})
        self.state = TrainState(heads().to(device), self.settings)
        self.device, self.micro = device, micro

    def __call__(self, data: list[Tensor]) -> float:
        batch = len(data[0])
        size = self.micro or batch
        parts = []
        for begin in range(0, batch, size):
            rows = [tensor[begin : begin + size].to(self.device) for tensor in data]
            parts.append(
                Batch(rows[0], rows[1:], BatchRows(0, self.state.step, begin, len(rows[0])))
            )
        row = training_step(self.state, StepParts.of(parts), 1e-5, self.settings)
        return row["loss"]


def synchronize(device: torch.device) -> None:
    """Wait for what was started on ``device``."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(
    step: Callable[[list[Tensor]], float], data: list[Tensor], device: torch.device
) -> float:
    """Time of one step."""
    synchronize(device)
    begin = time.perf_counter()
    step(data)
    synchronize(device)
    return time.perf_counter() - begin


def products(batch: int) -> float:
    """Floating-point operations of the dense step's matrix products in the heads."""
    image = 3 * 8 * IMAGE * IMAGE - 8 * IMAGE * (IMAGE - 1024)
    text = 3 * 8 * TEXT * TEXT - 8 * TEXT * (TEXT - 1024)
    return 6 * batch * (image + COLUMNS * text)


def compare(batch: int, rounds: int, device: torch.device) -> None:
    """Print a line per step, each made, measured and dropped in its turn."""
    data = features(batch)
    makers: dict[str, Callable[[], Callable[[list[Tensor]], float]]] = {
        "dense float32": lambda: DenseStep(device, low=False),
        "dense autocast": lambda: DenseStep(device, low=True),
        "lateen float32": lambda: OurStep(device, low=False),
        "lateen bfloat16": lambda: OurStep(device, low=True),
    }
    times: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():
            step = make()
            step(features(min(batch, 64)))  # momenta and libraries' buffers
            times[name].append(seconds(step, data, device))
            del step
    dense = statistics.median(times["dense float32"])
    print(f"batch {batch}, {device}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name, taken in times.items():
        median = statistics.median(taken)
        print(
            f"{name:16} {median:7.2f} s  {dense / median:5.2f}x  {batch / median:8.0f} images/s  "
            f"{products(batch) / median / 1e12:6.2f} TFLOP/s of the dense step's products"
        )


def memory(batch: int, micro: int) -> tuple[float, float, float]:
    """(seconds, peak resident bytes, loss) of one step in this process."""
    data = features(batch)
    step = OurStep(torch.device("cpu"), low=True, micro=micro)
    step(features(64))  # the optimiser's state, which every later step has beside it
    begin = time.perf_counter()
    loss = step(data)
    return time.perf_counter() - begin, resident("VmHWM"), loss


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=2048, help="images (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--memory", type=int, metavar="BATCH", help="measure peak memory instead")
    parser.add_argument(
        "--micro", type=int, default=1024, help="of --memory (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.memory is None:
        compare(options.batch, options.rounds, torch.device(options.device))
        return
    taken, peak, loss = in_process(memory, options.memory, options.micro)
    print(
        f"batch {options.memory} in micro-batches of {options.micro}: peak {peak / 2**30:.2f} GB "
        f"resident, {taken:.0f} s, loss {loss:.4g}"
    )


if __name__ == "__main__":
    main()
