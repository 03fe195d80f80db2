"""From which cosine on two photographs are nearly the same: copies against other photographs.

    python benchmarks/near_duplicates.py runs/f8k/model path/to/photographs

Of some photographs, copies are made in memory: saved as a poor JPEG, at half the size, cropped,
brighter, mirrored, grey. For each level, how many copies have that cosine with their original, and
how many of the photographs have it with another one of the folder, which may be of the same burst.
"""

import argparse
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lateen.model import open_model
from lateen.model.model import as_image
from lateen.report.tables import Column, TableData

LEVELS = (0.8, 0.85, 0.9, 0.93, 0.95, 0.97)


def poor_jpeg(image: Image.Image) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=50)
    return Image.open(out).convert("RGB")


def cropped(image: Image.Image, share: float) -> Image.Image:
    x, y = round(share * image.width / 2), round(share * image.height / 2)
    return image.crop((x, y, image.width - x, image.height - y))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG of quality 50": poor_jpeg,
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "cropped by 5 %": lambda image: cropped(image, 0.05),
    "cropped by 10 %": lambda image: cropped(image, 0.10),
    "brighter by 15 %": lambda image: Image.eval(image, lambda value: min(255, int(1.15 * value))),
    "mirrored": ImageOps.mirror,
    "grey": lambda image: image.convert("L").convert("RGB"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("photographs", type=Path)
    parser.add_argument("--count", type=int, default=400)
    given = parser.parse_args()
    model = open_model(given.model)
    files = sorted(path for path in given.photographs.rglob("*") if path.is_file())
    images = [as_image(path) for path in random.Random(0).sample(files, given.count)]
    originals = model.encode_image(images).numpy()
    others = originals @ originals.T
    np.fill_diagonal(others, -1)
    cosines = {"another photograph": others.max(1)}
    for name, copy in COPIES.items():
        copies = model.encode_image([copy(image) for image in images]).numpy()
        cosines[name] = (originals * copies).sum(1)
    rows = [
        [name, float(np.median(c)), *(100 * float((c >= level).mean()) for level in LEVELS)]
        for name, c in cosines.items()
    ]
    columns = [Column(""), Column("median cosine", 3)]
    columns += [Column(f"≥ {level:g} (%)", 1) for level in LEVELS]
    print(TableData(f"{given.count} photographs", columns, rows).markdown())


if __name__ == "__main__":
    main()
