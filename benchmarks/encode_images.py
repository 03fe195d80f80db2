"""Image encoding: lateen's whole pass against bare decode, preprocess and forward, added up.

The reference does one thing after the other on the same images, with the same encoder in the same
precision and batches, and without threads of its own, resume, hashes or a file to write.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from lateen.data import ImageFolder, Sample
from lateen.device import forward_pass
from lateen.encoders import load_encoder
from lateen.encoders.weights import quiet_transformers
from lateen.features import encode

BATCH = 16


class Subset:
    """The first images of a folder, as a dataset."""

    columns: tuple[str, ...] = ()

    def __init__(self, samples: list[Sample], name: str) -> None:
        self.samples, self.name, self.fingerprint = samples, name, name

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self):  # type: ignore[no-untyped-def]
        return iter(self.samples)


def bare(paths: list[Path], folder: str, precision: str) -> dict[str, float]:
    """Seconds of each part, one after the other."""
    with quiet_transformers():
        model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        model.to(memory_format=torch.channels_last)
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    begin = time.perf_counter()
    images = [Image.open(path).convert("RGB") for path in paths]
    decoded = time.perf_counter()
    pixels = [processor(images=[i], return_tensors="pt")["pixel_values"] for i in images]
    prepared = time.perf_counter()
    with forward_pass(torch.device("cpu"), precision):
        for start in range(0, len(pixels), BATCH):
            batch = torch.cat(pixels[start : start + BATCH])
            model(pixel_values=batch.to(memory_format=torch.channels_last))
    done = time.perf_counter()
    return {"decode": decoded - begin, "preprocess": prepared - decoded, "forward": done - prepared}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--pooling", required=True)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = (s for s in ImageFolder(options.images) if isinstance(s, Sample))
    samples = list(itertools.islice(found, options.count))
    paths = [options.images / sample.id for sample in samples]
    encoder = load_encoder(options.encoder, "image", pooling=options.pooling)
    parts, whole = [], []
    for round_ in range(options.rounds + 1):
        times = bare(paths, options.encoder, encoder.info.precision)
        with tempfile.TemporaryDirectory() as folder:
            begin = time.perf_counter()
            encode(Subset(samples, str(round_)), encoder, Path(folder) / "s", batch_size=BATCH)
            seconds = time.perf_counter() - begin
        if round_:  # the first round warms up
            parts.append(times)
            whole.append(seconds)
    for name in parts[0]:
        print(f"{name:12s} {statistics.median(p[name] for p in parts):6.2f} s")
    ratios = [sum(p.values()) / w for p, w in zip(parts, whole, strict=True)]
    rate = len(samples) / statistics.median(whole)
    print(f"lateen       {statistics.median(whole):6.2f} s  {rate:.0f} images/s")
    print(
        f"ratio        {statistics.median(ratios):.2f} of the bare parts ({encoder.info.precision})"
    )


if __name__ == "__main__":
    main()
