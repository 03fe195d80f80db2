"""Captions out of another file as further positives of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_run import recipe

from lateen.errors import DataError
from lateen.experiment import run
from lateen.experiment.runs import RunResult
from lateen.features import Store


@pytest.fixture
def made(album: Path) -> Path:
    """As `lateen caption` makes them, of all images but one."""
    rows = [json.loads(line) for line in (album / "train.jsonl").read_text().splitlines()]
    path = album / "vlm.jsonl"
    path.write_text("".join(
        json.dumps({"id": r["image"], "vlm_caption": f"It is {r['caption'][0]}."}) + "\n"
        for r in rows[1:]
    ))  # fmt: skip
    return path


def ran(album: Path, **settings: object) -> RunResult:
    quick = {"train.epochs": 2, "data.captions_beside": ["vlm.jsonl"]}
    return run(recipe(album, **quick | settings), album / "run")


def columns(album: Path) -> dict[str, int]:
    stores = [Store.open(folder) for folder in (album / "run" / "stores").iterdir()]
    return {f"{store.manifest.description.column}": len(store) for store in stores}


def test_a_run_trains_on_them_beside_its_own(album: Path, made: Path) -> None:
    done = ran(album)
    assert columns(album) == {"None": 24, "caption": 48, "vlm_caption": 23}
    training = done.model.config.training
    assert training["captions"] == 3 * training["pairs"]
    assert training["pairs"] + done.results["retrieval"]["images"] == 23


def test_other_splits_are_judged_on_their_own(album: Path, made: Path) -> None:
    (album / "test.jsonl").write_text((album / "train.jsonl").read_text())
    chosen = ["caption#1", "vlm_caption"]
    done = ran(album, **{"data.test": "test.jsonl", "data.captions": chosen})
    training = done.model.config.training
    assert training["captions"] == 2 * training["pairs"]
    assert done.results["retrieval"]["captions"] == 48


def test_photographs_without_captions_of_their_own_are_enough(album: Path, made: Path) -> None:
    ran(album, **{"data.train": "images", "data.images": None})
    assert columns(album) == {"None": 24, "vlm_caption": 23}


def test_a_file_that_is_not_there_is_told_first(album: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*gone\.parquet"):
        ran(album, **{"data.captions_beside": ["gone.parquet"]})
