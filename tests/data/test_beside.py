"""Captions of other files beside a dataset's own: joined by id, and nothing lost silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lateen.data import Sample, Skip, open_dataset
from lateen.data.beside import CaptionsBeside
from lateen.errors import DataError


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def own(album: Path) -> Path:
    return album / "train.jsonl"


def made(folder: Path, ids: list[str], column: str = "vlm_caption", name: str = "v.jsonl") -> Path:
    return table(folder / name, [{"id": i, column: f"long {i}"} for i in ids])


def joined(own: Path, *others: Path) -> CaptionsBeside:
    return CaptionsBeside(open_dataset(own), [open_dataset(other) for other in others])


def test_each_sample_gets_the_captions_of_its_id(own: Path, tmp_path: Path) -> None:
    ids = [f"{i:03d}.png" for i in range(24)]
    dataset = joined(own, made(tmp_path, [*reversed(ids), "other.png"]))
    samples = [item for item in dataset if isinstance(item, Sample)]
    assert dataset.columns == ("caption", "vlm_caption")
    assert [sample.id for sample in samples] == ids
    assert all(sample.captions["vlm_caption"] == (f"long {sample.id}",) for sample in samples)
    assert all(len(sample.captions["caption"]) == 2 and sample.image for sample in samples)
    assert len(dataset) == len(list(dataset)) == 24


def test_one_without_a_further_caption_comes_with_a_skip(own: Path, tmp_path: Path) -> None:
    other = table(tmp_path / "v.jsonl", [
        {"id": "000.png", "vlm_caption": "long"}, {"id": "001.png", "vlm_caption": None},
    ])  # fmt: skip
    items = list(dataset := joined(own, other))
    skips = [item for item in items if isinstance(item, Skip)]
    assert len(items) == len(dataset) == 24 + 23
    assert {skip.column for skip in skips} == {"vlm_caption"}
    assert not any(skip.sample for skip in skips)
    assert (skips[0].id, skips[0].reason) == ("001.png", "the caption is empty")
    assert skips[1].reason == f"{other} has no caption of it"


def test_images_alone_have_captions_then(album: Path, tmp_path: Path) -> None:
    dataset = joined(album / "images", made(tmp_path, ["003.png"]))
    assert dataset.columns == ("vlm_caption",)
    [sample] = [item for item in dataset if isinstance(item, Sample) and item.captions]
    assert sample.id == "003.png"


def test_another_caption_is_another_fingerprint(own: Path, tmp_path: Path) -> None:
    ids = ["000.png", "001.png"]
    first = joined(own, made(tmp_path, ids)).fingerprint
    assert joined(own, made(tmp_path, ids, name="again.jsonl")).fingerprint == first
    assert joined(own, made(tmp_path, ids[:1])).fingerprint != first


def test_what_cannot_be_joined_is_refused(own: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not one id of .* is in .*\(such as 'a' and '000.png'\)"):
        joined(own, made(tmp_path, ["a"]))
    with pytest.raises(DataError, match="has a column 'caption', too"):
        joined(own, made(tmp_path, ["000.png"], "caption"))
    with pytest.raises(DataError, match="has no captions"):
        joined(own, own.parent / "images")
