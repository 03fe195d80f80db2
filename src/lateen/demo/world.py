"""The demo's data set: generated scenes, captions, and combinations that training never sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lateen.demo.drawing import draw
from lateen.demo.scene import ALL, HELD_OUT, SEEN, Scene, random_scene
from lateen.demo.wording import detailed_caption, short_captions
from lateen.files import folder_lock, jsonl, read_json, write_json, write_text
from lateen.progress import bar

_VERSION = 1  # of everything that decides what a seed draws and says
_MARKER = "world.json"
_SHORT_CAPTIONS = 2
_PER_COMBINATION = 13


@dataclass(frozen=True)
class World:
    """A generated world and where it lies.

    ``folder`` holds ``images/``, ``train.jsonl`` and ``test.jsonl`` (columns ``image``, ``short``
    and ``detailed``, the last two lists of captions), and the class folders ``unseen-shape/`` and
    ``unseen-colour/`` with the same pictures.

    Attributes:
        folder: where it lies.
        train: scenes of seen combinations alone.
        test: scenes of all combinations.
        unseen: scenes of one thing each, of a held-out combination.
    """

    folder: Path
    train: tuple[Scene, ...]
    test: tuple[Scene, ...]
    unseen: tuple[Scene, ...]


def generate_world(out: Path, *, train: int = 4000, test: int = 500, seed: int = 0) -> World:
    """Draw a world into ``out``, unless that very world is already there.

    Args:
        out: folder to write to.
        train: number of training scenes.
        test: number of test scenes.
        seed: the same seed gives the same files.

    Raises:
        BusyError: another process is drawing into ``out``.
        LateenError: the disk is full.
    """
    world = World(
        folder=out,
        train=tuple(random_scene(f"train-{i:04d}", (seed, 0, i), SEEN) for i in range(train)),
        test=tuple(random_scene(f"test-{i:04d}", (seed, 1, i), ALL) for i in range(test)),
        unseen=tuple(_unseen_scenes(seed)),
    )
    parameters = {"version": _VERSION, "train": train, "test": test, "seed": seed}
    marker = out / _MARKER
    with folder_lock(out):
        if not (marker.exists() and read_json(marker) == parameters):
            marker.unlink(missing_ok=True)
            _draw_all(world)
            for split, scenes in (("train", world.train), ("test", world.test)):
                write_text(out / f"{split}.jsonl", jsonl([_row(scene) for scene in scenes]))
            write_json(marker, parameters)
    return world


def _unseen_scenes(seed: int) -> Iterator[Scene]:
    for i, (shape, colour) in enumerate(sorted(HELD_OUT)):
        for j in range(_PER_COMBINATION):
            name = f"{colour}-{shape}-{j:02d}"
            yield random_scene(name, (seed, 2, i, j), frozenset([(shape, colour)]), count=1)


def _draw_all(world: World) -> None:
    files = {scene: [f"images/{scene.name}.jpg"] for scene in world.train + world.test}
    for scene in world.unseen:
        (thing,) = scene.things
        classes = f"unseen-shape/{thing.shape}", f"unseen-colour/{thing.colour}"
        files[scene] = [f"{folder}/{scene.name}.jpg" for folder in classes]
    for folder in {(world.folder / path).parent for paths in files.values() for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    with bar(len(files), "drawing scenes", "scene") as progress:
        for scene, paths in files.items():
            picture = draw(scene)
            for path in paths:
                picture.save(world.folder / path, quality=92, subsampling=0)
            progress.update()


def _row(scene: Scene) -> dict[str, Any]:
    return {
        "image": f"{scene.name}.jpg",
        "short": short_captions(scene, _SHORT_CAPTIONS),
        "detailed": [detailed_caption(scene)],
    }
