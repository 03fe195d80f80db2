"""Retrieval both ways, 25,000 captions × 5,000 images: against a full sort of the score matrix.

    python benchmarks/retrieval.py

Both sides are measured in turns in one run; the ratio of the medians counts, not the seconds. Then
each side's peak memory, in a process of its own. The plain side is what evaluation scripts commonly
do: the whole matrix in float32, sorted along its rows and along its columns.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import torch.nn.functional as F
from measure import in_process, peak_growth

from lateen.metrics import retrieval


def embeddings(images: int, captions: int, dim: int) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    owner = torch.arange(captions) % images
    image = F.normalize(torch.randn(images, dim, generator=generator), dim=-1)
    noise = torch.randn(captions, dim, generator=generator)
    return image, F.normalize(image[owner] + 0.5 * noise, dim=-1), owner


def sorted_recall(image: torch.Tensor, text: torch.Tensor, owner: torch.Tensor) -> list[float]:
    scores = text @ image.T
    by_text = scores.argsort(dim=1, descending=True) == owner[:, None]
    by_image = owner[scores.T.argsort(dim=1, descending=True)] == torch.arange(len(image))[:, None]
    return [100 * hits[:, :k].any(1).double().mean().item() for hits in (by_text, by_image)
            for k in (1, 5, 10)]  # fmt: skip


def lateen_recall(image: torch.Tensor, text: torch.Tensor, owner: torch.Tensor) -> list[float]:
    result = retrieval(image, text, owner)
    return [result[way][f"R@{k}"] for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)]


SIDES = {"full sort": sorted_recall, "lateen": lateen_recall}


def growth(name: str, *size: int) -> float:
    data = embeddings(*size)
    return peak_growth(lambda: SIDES[name](*data))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--captions", type=int, default=25_000)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--dim", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    size = (options.images, options.captions, options.dim)
    data = embeddings(*size)
    seconds: dict[str, list[float]] = {name: [] for name in (*SIDES, "product")}
    for _ in range(options.rounds):
        answers = []
        for name, work in SIDES.items():
            begin = time.perf_counter()
            answers.append(work(*data))
            seconds[name].append(time.perf_counter() - begin)
        assert torch.allclose(*map(torch.tensor, answers), atol=0.01), answers
        begin = time.perf_counter()
        _ = data[1] @ data[0].T
        seconds["product"].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"{name:10} {value:6.2f} s   {medians['full sort'] / value:5.1f}×")
    for name in SIDES:
        print(f"{name:10} {in_process(growth, name, *size) / 2**20:6.0f} MiB beyond the embeddings")


if __name__ == "__main__":
    main()
