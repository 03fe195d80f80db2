"""Drawn photographs of one colour each, an index of them, and a client of a server of it."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lateen.indexing import Index

ADDRESS = "http://127.0.0.1:7860"
COLOURS = {"red": (250, 10, 10), "green": (10, 250, 10), "blue": (10, 10, 250)}
FOLDERS = ("Italy/2023", "Italy/2024", "Norway", "")
PLACE = {1: "N", 2: (48.0, 8.0, 14.0), 3: "E", 4: (11.0, 34.0, 31.0)}


def picture(colour: str, *, size: tuple[int, int] = (60, 40), seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, form: str = "PNG", **values: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **values)
    return out.getvalue()


def exif(year: int, orientation: int = 1) -> Image.Exif:
    """When and where a photograph was taken."""
    tags = Image.Exif()
    tags[0x0132] = f"{year}:05:31 12:30:00"
    tags[0x0112] = orientation
    tags.get_ifd(0x8825).update(PLACE)
    return tags


def draw_photographs(folder: Path) -> None:
    """Twelve of each colour, in four folders, of 2018 to 2023."""
    for number in range(36):
        colour = list(COLOURS)[number % 3]
        place = folder / FOLDERS[number % 4] / f"{colour}-{number:02d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        size = (60, 40) if number % 2 else (40, 60)
        picture(colour, size=size, seed=number).save(
            place, exif=exif(2018 + number % 6), comment=b"taken at home", quality=90
        )


def opened(folder: Path, *, calibrated: bool = False) -> Index:
    """The index; with a model that can tell how probable it is that a photograph shows it."""
    found = Index.open(folder / "index")
    if calibrated:
        found.about = replace(found.about, likely_scale=40.0, likely_bias=-20.0, cut_off=0.5)
    return found


Serve = Callable[..., Any]


def engine_of(client: Any) -> Any:
    return client.app.state.engine
