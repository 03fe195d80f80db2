"""Captions out of another file as further positives of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_run import recipe

from lateen.errors import DataError
from lateen.experiment import run
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


def columns(album: Path) -> dict[str, int]:
    stores = [Store.open(folder) for folder in (album / "run" / "stores").iterdir()]
    return {f"{store.manifest.description.column}": len(store) for store in stores}


def test_a_run_trains_on_them_beside_its_own(album: Path, made: Path) -> None:
    done = run(recipe(album, **{"data.captions_beside": ["vlm.jsonl"]}), album / "run")
    assert columns(album) == {"None": 24, "caption": 48, "vlm_caption": 23}
    training = done.model.config.training
    assert training["captions"] == 3 * training["pairs"]
    assert training["pairs"] + done.results["retrieval"]["images"] == 23


def test_columns_are_chosen_from_both(album: Path, made: Path) -> None:
    chosen = {"data.captions": ["vlm_caption"], "data.captions_beside": ["vlm.jsonl"]}
    done = run(recipe(album, **chosen), album / "run")
    assert columns(album) == {"None": 24, "vlm_caption": 23}
    assert done.model.config.training["captions"] == done.model.config.training["pairs"]


def test_other_splits_are_judged_on_their_own(album: Path, made: Path) -> None:
    (album / "test.jsonl").write_text((album / "train.jsonl").read_text())
    settings = {
        "data.test": "test.jsonl", "data.captions": ["caption", "vlm_caption"],
        "data.captions_beside": ["vlm.jsonl"],
    }  # fmt: skip
    done = run(recipe(album, **settings), album / "run")
    assert done.results["retrieval"]["captions"] == 48


def test_photographs_without_captions_of_their_own_are_enough(album: Path, made: Path) -> None:
    settings = {"data.train": "images", "data.images": None, "data.captions_beside": ["vlm.jsonl"]}
    run(recipe(album, **settings), album / "run")
    assert columns(album) == {"None": 24, "vlm_caption": 23}


def test_a_file_that_is_not_there_is_told_first(album: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*gone\.parquet"):
        run(recipe(album, **{"data.captions_beside": ["gone.parquet"]}), album / "run")
