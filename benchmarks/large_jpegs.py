"""Large JPEGs for an encoder of 224 pixels: decoded at a part of their size, beside in full.

    python benchmarks/large_jpegs.py [--count 12] [--edge 4000]

They are timed in turn on one thread, with the resizing that follows, on photographs that are drawn
for it. The difference is of the resized pixels to those of the whole image, on a scale of 0 to 255.
Where simplejpeg is installed, its own decoding at a part of the size is beside them.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import statistics
import time
from collections.abc import Callable

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


def in_full(source: MemoryImage) -> Image.Image:
    return decode_image(source)


def in_part(source: MemoryImage) -> Image.Image:
    return decode_image(source, short_side=TARGET)


def by_simplejpeg(source: MemoryImage) -> Image.Image:
    import simplejpeg

    # The size is a lower bound: it takes the next scale above, of eighths.
    return Image.fromarray(
        simplejpeg.decode_jpeg(
            source.read(), min_height=2 * TARGET, min_width=2 * TARGET, min_factor=2
        )
    )


def resized(decode: Callable[[MemoryImage], Image.Image], source: MemoryImage) -> np.ndarray:
    image = decode(source)
    ratio = TARGET / min(image.size)
    size = (round(image.width * ratio), round(image.height * ratio))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC), np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=12, help="photographs (12)")
    parser.add_argument("--edge", type=int, default=4000, help="longer side in pixels (4000)")
    options = parser.parse_args()
    ways = {"in full": in_full, "in part": in_part}
    if importlib.util.find_spec("simplejpeg"):
        ways["simplejpeg in part"] = by_simplejpeg
    times: dict[str, list[float]] = {name: [] for name in ways}
    differences: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(options.count):
        source = MemoryImage("photo", photograph(seed, options.edge))
        whole = resized(in_full, source)
        for name, decode in ways.items():
            start = time.perf_counter()
            pixels = resized(decode, source)
            times[name].append(time.perf_counter() - start)
            differences[name].append(float(np.abs(pixels - whole).mean()))
    megapixels = options.edge * (options.edge * 3 // 4) / 1e6
    print(f"{options.count} JPEGs of {megapixels:.0f} megapixels, one thread, median per image")
    full = statistics.median(times["in full"])
    for name, seconds in times.items():
        median = statistics.median(seconds)
        difference = statistics.mean(differences[name])
        print(
            f"{name:20}{1000 * median:7.1f} ms{full / median:7.1f} × the speed   "
            f"difference {difference:.2f} of 255"
        )


if __name__ == "__main__":
    main()
