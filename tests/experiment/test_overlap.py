import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from test_run import recipe
from toys import COLOURS, ColourEncoder, WordEncoder, photo

from lateen.experiment import run, write_run_page
from lateen.experiment.overlap import warn_of_splits
from lateen.features import Pairs, encode, pair


def split(folder: Path, pictures: dict[str, int]) -> Pairs:
    """Pairs of noisy pictures, given as the seed of each by its id."""
    rows = []
    for name, seed in pictures.items():
        colour = list(COLOURS)[seed % len(COLOURS)]
        photo(folder / name, colour, seed)
        rows.append(json.dumps({"image": name, "caption": f"a {colour} picture"}))
    (folder / "c.jsonl").write_text("\n".join(rows) + "\n")
    table = folder / "c.jsonl"
    return pair(
        encode(table, ColourEncoder(), folder / "i"), encode(table, WordEncoder(), folder / "t")
    )


def numbered(start: int, stop: int, *, name: str = "") -> dict[str, int]:
    return {f"{name}{seed}.png": seed for seed in range(start, stop)}


def test_splits_that_share_nothing_are_not_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    splits = {
        "train": split(tmp_path / "a", numbered(0, 10)),
        "test": split(tmp_path / "b", numbered(100, 150)),
    }
    assert warn_of_splits(splits) == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_images_that_stand_in_two_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train = split(tmp_path / "a", numbered(0, 60))
    copies = {"x.png": 7, "y.png": 8, **numbered(100, 150)}
    splits = {
        "test": split(tmp_path / "c", {**numbered(58, 60), "other.png": 9, **numbered(100, 150)}),
        "validation": split(tmp_path / "b", copies),
        "train": train,
    }
    expected = [
        "2 of the 52 images of validation are in train too (the first: 'x.png', in train '7.png'): "
        "R@K on validation is too high; leave them out of one",
        "3 of the 53 images of test are in train too (the first: '58.png'): "
        "R@K on test is too high; leave them out of one",
        "50 of the 53 images of test are in validation too (the first: '100.png'): "
        "R@K on test is too high; leave them out of one",
    ]
    assert warn_of_splits(splits) == expected
    assert [record.getMessage() for record in caplog.records] == expected


def test_rows_numbered_alike_are_not_the_same_images(tmp_path: Path) -> None:
    first = split(tmp_path / "a", numbered(0, 50))
    others = {name: seed + 101 for name, seed in numbered(0, 50).items()}
    assert warn_of_splits({"train": first, "test": split(tmp_path / "b", others)}) == []


def test_the_same_file_is_known_whatever_its_features(tmp_path: Path) -> None:
    """Computed in another batch, with another version: features of one file may differ."""

    class Other(ColourEncoder):
        def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
            return super().encode(prepared) + 0.1

    train = split(tmp_path / "a", numbered(0, 20))
    test = split(tmp_path / "b", {"copy.png": 7, "again.png": 7, **numbered(100, 148)})
    images = encode(tmp_path / "b" / "c.jsonl", Other(), tmp_path / "b" / "j")
    test = pair(images, test.texts[0].store)
    assert warn_of_splits({"train": train, "test": test}) == [
        "2 of the 50 images of test are in train too (the first: 'copy.png', in train '7.png'): "
        "R@K on test is too high; leave them out of one"
    ]


def test_few_held_out_images(tmp_path: Path) -> None:
    splits = {
        "train": split(tmp_path / "a", numbered(0, 5)),
        "holdout": split(tmp_path / "b", numbered(20, 24)),
        "test": split(tmp_path / "c", numbered(30, 79)),
    }
    assert warn_of_splits(splits) == [
        "4 held-out images (holdout): differences of less than 49 points say nothing",
        "49 held-out images (test): differences of less than 14 points say nothing",
    ]


def test_a_run_tells_on_its_page_and_in_its_results(album: Path) -> None:
    shutil.copy(album / "images" / "003.png", album / "images" / "copy.png")
    rows = [{"image": name, "caption": "white"} for name in ("copy.png", "005.png")]
    (album / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"root": str(album), "train": "train.jsonl", "test": "test.jsonl", "holdout": 0.25}
    result = run(recipe(album, data=data), album / "run")
    warnings = json.loads((album / "run" / "results.json").read_text())["warnings"]
    assert any("images of test are in" in warning for warning in warnings)
    page = write_run_page(result).read_text()
    assert "2 held-out images (test)" in page
    assert "too high" in page
