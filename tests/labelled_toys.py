"""Tiny labelled sets of one colour a picture, in the layouts in which such sets are published."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image
from toys import COLOURS, photo

Pictures = Sequence[tuple[str, int]]
"""Colour and label of each picture."""


def picture(colour: str, seed: int = 0, form: str = "PNG") -> bytes:
    """A small noisy picture of one colour, encoded."""
    noise = np.random.default_rng(seed).normal(0, 12, (12, 16, 3))
    pixels = np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form, lossless=form == "WEBP")
    return buffer.getvalue()


def class_folder(root: Path, colours: Iterable[str], count: int = 3, seed: int = 0) -> Path:
    """``<colour>/<number>.png``, by colour."""
    for colour in colours:
        for index in range(count):
            photo(root / colour / f"{index}.png", colour, seed=seed + index)
    return root


def shard(path: Path, pictures: Pictures, form: str = "WEBP", start: int = 0) -> Path:
    """A tar shard of CLIP_benchmark's form: ``s0000000.webp`` and ``s0000000.cls``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for index, (colour, label) in enumerate(pictures, start=start):
            for kind, data in ((form.lower(), picture(colour, index, form)),
                               ("cls", str(label).encode())):  # fmt: skip
                member = tarfile.TarInfo(f"s{index:07d}.{kind}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def benchmark_folder(
    root: Path, names: Sequence[str], *, test: Pictures, train: Pictures = (),
    templates: str = "a {c} picture\n",
) -> Path:  # fmt: skip
    """A dataset as CLIP_benchmark uploads it, each split in two shards."""
    for split, pictures in (("test", test), ("train", train)):
        half = (len(pictures) + 1) // 2
        for number, some in enumerate((pictures[:half], pictures[half:])):
            if pictures:
                shard(root / split / f"{number}.tar", some, start=number * half)
                (root / split / "nshards.txt").write_text("2\n")
    (root / "classnames.txt").write_text("".join(f"{name}\n" for name in names))
    (root / "zeroshot_classification_templates.txt").write_text(templates)
    return root


def rows(
    pictures: Sequence[tuple[str, Any]], names: Sequence[str] | None = None, *,
    image: str = "image", label: str = "label", **more: list[Any],
) -> datasets.Dataset:  # fmt: skip
    """Rows as on the hub: an image and a label, a ``ClassLabel`` if there are names."""
    cells = [{"bytes": picture(c, i), "path": None} for i, (c, _) in enumerate(pictures)]
    table = datasets.Dataset.from_dict({image: cells, label: [x for _, x in pictures], **more})
    table = table.cast_column(image, datasets.Image())
    if names is not None:
        table = table.cast_column(label, datasets.ClassLabel(names=list(names)))
    return table


def cached_on_hub(cache: Path, name: str, folder: Path) -> None:
    """Put ``folder`` where the hub's client finds the dataset ``name`` without a network."""
    commit = "0" * 40
    entry = cache / f"datasets--{name.replace('/', '--')}"
    (entry / "refs").mkdir(parents=True)
    (entry / "refs" / "main").write_text(commit)
    (entry / "snapshots").mkdir()
    (entry / "snapshots" / commit).symlink_to(folder, target_is_directory=True)
