import json

import pytest
from PIL import Image

from lateen.demo.scene import COLOURS, HELD_OUT, SHAPES
from lateen.demo.world import generate_world
from lateen.errors import BusyError
from lateen.files import folder_lock


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return generate_world(tmp_path_factory.mktemp("world"), train=60, test=10, seed=1)


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def _files(folder):
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_tables_name_every_picture_with_its_captions(world):
    for split, scenes in (("train", world.train), ("test", world.test)):
        rows = _rows(world.folder / f"{split}.jsonl")
        assert [row["image"] for row in rows] == [f"{scene.name}.jpg" for scene in scenes]
        for row in rows:
            assert list(row) == ["image", "short", "detailed"]
            assert len(row["short"]) == 2
            assert len(row["detailed"]) == 1
            with Image.open(world.folder / "images" / row["image"]) as image:
                assert image.mode == "RGB"


def test_held_out_combinations_are_in_no_training_scene(world):
    trained = {(t.shape, t.colour) for scene in world.train for t in scene.things}
    assert len(trained) > 30
    assert not trained & HELD_OUT
    text = (world.folder / "train.jsonl").read_text()
    assert not [pair for pair in HELD_OUT if f"{pair[1]} {pair[0]}" in text]


@pytest.mark.parametrize(("folder", "classes"), [("shape", SHAPES), ("colour", COLOURS)])
def test_class_folders_hold_held_out_combinations_alone(world, folder, classes):
    root = world.folder / f"unseen-{folder}"
    assert {path.name for path in root.iterdir()} == set(classes)
    named = {scene.name: scene.things[0] for scene in world.unseen}
    for name in classes:
        things = [named[path.stem] for path in (root / name).iterdir()]
        assert len(things) == 26
        assert {getattr(thing, folder) for thing in things} == {name}
        assert {(thing.shape, thing.colour) for thing in things} <= HELD_OUT


def test_the_seed_decides_every_byte(world, tmp_path):
    again = generate_world(tmp_path / "again", train=60, test=10, seed=1)
    assert (again.train, again.test, again.unseen) == (world.train, world.test, world.unseen)
    assert _files(again.folder) == _files(world.folder)


def test_a_longer_world_begins_with_the_shorter_one(world, tmp_path):
    longer = generate_world(tmp_path, train=61, test=0, seed=1)
    assert longer.train[:60] == world.train


def test_a_finished_world_is_not_drawn_again(tmp_path):
    generate_world(tmp_path, train=2, test=1)
    picture = tmp_path / "images" / "train-0000.jpg"
    picture.write_bytes(b"kept")
    assert len(generate_world(tmp_path, train=2, test=1).train) == 2
    assert picture.read_bytes() == b"kept"


@pytest.mark.parametrize("change", [{"seed": 5}, {"train": 3}, {"test": 2}])
def test_other_parameters_draw_anew(tmp_path, change):
    generate_world(tmp_path, train=2, test=1)
    picture = tmp_path / "images" / "train-0000.jpg"
    picture.write_bytes(b"old")
    generate_world(tmp_path, **{"train": 2, "test": 1, **change})
    assert picture.read_bytes() != b"old"


def test_an_interrupted_world_is_drawn_anew(tmp_path, monkeypatch):
    def killed(scene):
        raise KeyboardInterrupt

    generate_world(tmp_path, train=2, test=1, seed=0)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("lateen.demo.world.draw", killed)
        generate_world(tmp_path, train=2, test=1, seed=9)
    picture = tmp_path / "images" / "train-0000.jpg"
    picture.write_bytes(b"half")
    generate_world(tmp_path, train=2, test=1, seed=0)
    assert picture.read_bytes() != b"half"


def test_two_processes_do_not_draw_into_one_folder(tmp_path):
    with folder_lock(tmp_path), pytest.raises(BusyError):
        generate_world(tmp_path, train=1, test=1)
