"""Large JPEGs for an encoder of 224 pixels: decoded at a part of their size, beside in full.

    python benchmarks/large_jpegs.py [--count 12] [--edge 4000]

Both are timed in turn on one thread, with the resizing that follows, on photographs that are drawn
for it. The difference is of the resized pixels, on a scale of 0 to 255.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time

import numpy as np
from PIL import Image

from lateen.data import MemoryImage, decode_image

TARGET = 224


def photograph(seed: int, edge: int) -> bytes:
    """A JPEG of detail on every scale, 4:3, as a camera writes it (quality 92)."""
    random = np.random.default_rng(seed)
    size = (edge, edge * 3 // 4)
    picture = np.zeros((size[1], size[0], 3), np.float32)
    for cells in (4, 16, 64, 256, 1024):
        layer = random.normal(size=(cells, cells, 3)).astype(np.float32)
        channels = [
            np.asarray(Image.fromarray(layer[..., c]).resize(size, Image.Resampling.BICUBIC))
            for c in range(3)
        ]
        picture += np.stack(channels, -1) / np.sqrt(cells)
    picture = (picture - picture.min()) / (picture.max() - picture.min()) * 255
    buffer = io.BytesIO()
    Image.fromarray(picture.astype(np.uint8)).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def resized(source: MemoryImage, side: int | None) -> np.ndarray:
    image = decode_image(source, short_side=side)
    ratio = TARGET / min(image.size)
    size = (round(image.width * ratio), round(image.height * ratio))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=12, help="photographs (12)")
    parser.add_argument("--edge", type=int, default=4000, help="longer side in pixels (4000)")
    options = parser.parse_args()
    times: dict[int | None, list[float]] = {None: [], TARGET: []}
    differences = []
    for seed in range(options.count):
        source = MemoryImage("photo", photograph(seed, options.edge))
        results = {}
        for side, seconds in times.items():
            start = time.perf_counter()
            results[side] = resized(source, side)
            seconds.append(time.perf_counter() - start)
        differences.append(float(np.abs(results[None] - results[TARGET]).mean()))
    full, part = (1000 * statistics.median(seconds) for seconds in times.values())
    pixels = options.edge * (options.edge * 3 // 4) / 1e6
    print(f"{options.count} JPEGs of {pixels:.0f} megapixels, one thread, median per image")
    print(f"in full     {full:7.1f} ms")
    print(f"in part     {part:7.1f} ms   {full / part:.1f} times as fast")
    print(f"difference  {statistics.mean(differences):7.2f} of 255 (mean of the resized pixels)")


if __name__ == "__main__":
    main()
