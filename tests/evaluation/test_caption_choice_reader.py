from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from benchmark_toys import picture, write
from builders import is_fixed, samples, skips

from lateen.data.images import decode_image
from lateen.data.samples import Sample
from lateen.errors import DataError, UsageError
from lateen.evaluation.tasks.caption_choice import read_caption_choice

SWAP = {
    "0": {"filename": "01.jpg", "caption": "red", "negative_caption": "blue"},
    "1": {"filename": "02.jpg", "caption": "a green one", "negative_caption": "a white one"},
}


def coco(folder: Path) -> Path:
    write(folder / "01.jpg", picture("red", kind="JPEG"))
    write(folder / "02.jpg", picture("green", kind="JPEG"))
    return folder


def relation(name: str, x: int, right: str, wrong: str, **more: Any) -> dict[str, Any]:
    """An entry of ARO's visual_genome_relation.json."""
    return {
        "image_id": name, "image_path": f"{name}.jpg", "bbox_x": x, "bbox_y": 0, "bbox_w": 16,
        "bbox_h": 32, "true_caption": right, "false_caption": wrong, "relation_name": "on", **more,
    }  # fmt: skip


def colour(sample: Sample) -> tuple[int, ...]:
    assert sample.image is not None
    pixel = decode_image(sample.image).getpixel((5, 5))
    assert isinstance(pixel, tuple)
    return pixel


def test_sugarcrepe_has_a_category_per_file_over_one_folder_of_images(tmp_path: Path) -> None:
    write(tmp_path / "data" / "swap_att.json", SWAP)
    write(tmp_path / "data" / "add_obj.json", {"0": SWAP["1"]})
    images = coco(tmp_path / "val2017")
    add, swap = read_caption_choice(tmp_path / "data", images=images)
    assert [case.id for case in swap.cases] == ["swap_att/0", "swap_att/1"]
    assert swap.cases[1].captions == ("a green one", "a white one")
    assert swap.cases[1].images == add.cases[0].images == ("02.jpg",)
    assert add.cases[0].groups == {"category": "add_obj"}
    assert [sample.id for sample in samples(swap.images)] == ["01.jpg", "02.jpg"]
    again = lambda: read_caption_choice(tmp_path / "data", images=images)[1].images  # noqa: E731
    assert is_fixed(again(), again)


@pytest.mark.parametrize("place", ["images", "val2017", "coco/images/val2017", "../val2017", "."])
def test_images_in_a_usual_place_are_found(tmp_path: Path, place: str) -> None:
    write(tmp_path / "data" / "swap_att.json", SWAP)
    coco(tmp_path / "data" / place)
    for source in (tmp_path / "data", tmp_path / "data" / "swap_att.json"):
        [found] = read_caption_choice(source)
        assert len(samples(found.images)) == 2


def test_aro_is_about_boxes_within_images_and_has_relations(tmp_path: Path) -> None:
    entries = [
        relation("2", 0, "red", "green"),
        relation("2", 16, "green", "red", relation_name="under"),
        relation("2", 16, "green", "blue"),
    ]
    write(tmp_path / "visual_genome_relation.json", entries)
    write(tmp_path / "images" / "2.jpg", picture("red", "green"))
    [found] = read_caption_choice(tmp_path)
    shown = samples(found.images)
    assert [colour(sample) for sample in shown] == [(255, 0, 0), (0, 255, 0)]
    assert [case.images for case in found.cases] == [
        ("2.jpg[0, 0, 16, 32]",), ("2.jpg[16, 0, 32, 32]",), ("2.jpg[16, 0, 32, 32]",),
    ]  # fmt: skip
    assert [case.groups["relation_name"] for case in found.cases] == ["on", "under", "on"]


def test_aro_attributes_are_a_group_together(tmp_path: Path) -> None:
    entry = relation("1", 0, "the red on the blue", "the blue on the red")
    del entry["relation_name"]
    entries = [{**entry, "attributes": ["old", "wet"]}, {**entry, "attributes": []}]
    write(tmp_path / "visual_genome_attribution.json", entries)
    write(tmp_path / "images" / "1.jpg", picture("red"))
    [found] = read_caption_choice(tmp_path / "visual_genome_attribution.json")
    assert [case.groups.get("attributes") for case in found.cases] == ["old_wet", None]


def test_an_entry_without_a_whole_box_is_about_the_whole_image(tmp_path: Path) -> None:
    entries = [relation("1", 0, "a", "b", bbox_w=None), relation("1", 0, "a", "b", bbox_w=1e999)]
    write(tmp_path / "visual_genome_relation.json", entries)
    write(tmp_path / "images" / "1.jpg", picture("red"))
    [found] = read_caption_choice(tmp_path)
    assert [case.images for case in found.cases] == [("1.jpg",), ("1.jpg",)]


def test_several_wrong_captions_as_a_list(tmp_path: Path) -> None:
    write(tmp_path / "val2014" / "a.jpg", picture("red"))
    entries = [
        {"image": "val2014/a.jpg", "caption_options": ["a b c", "b a c", "c b a"]},
        {"image": "val2014/a.jpg", "caption_options": ["a b c"]},
        {"image": "val2014/a.jpg", "caption_options": "a b c"},
    ]
    write(tmp_path / "coco_order.json", entries)
    [found] = read_caption_choice(tmp_path)
    assert [case.captions for case in found.cases] == [("a b c", "b a c", "c b a")]
    assert {skip.reason for skip in found.skips} == {"there are not two captions to choose from"}


def test_parquet_with_images_and_hard_texts_as_on_the_hub(tmp_path: Path) -> None:
    rows = [
        {"images": {"bytes": picture(c), "path": None}, "correct_caption": text,
         "hard_text_1": "x", "hard_text_2": "y"}
        for c, text in (("red", "red"), ("green", ""), ("blue", "blue"))
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test-00000-of-00001.parquet")
    [found] = read_caption_choice(tmp_path)
    assert [case.captions for case in found.cases] == [("red", "x", "y"), ("blue", "x", "y")]
    assert [colour(sample) for sample in samples(found.images)] == [(255, 0, 0), (0, 0, 255)]
    assert [sample.id for sample in samples(found.images)] == [
        case.images[0] for case in found.cases
    ]
    assert [skip.reason for skip in found.skips] == ["a caption is missing"]


def test_entries_that_cannot_be_used_are_recorded(tmp_path: Path) -> None:
    coco(tmp_path / "images")
    entries = {
        **SWAP, "2": "no object", "3": {"filename": "01.jpg", "caption": "alone"},
        "4": {"caption": "a", "negative_caption": "b"},
        "5": {"filename": "01.jpg", "caption": "a", "negative_caption": "\ud800"},
        "6": {"filename": "03.jpg", "caption": "a", "negative_caption": "b"},
    }  # fmt: skip
    write(tmp_path / "swap_obj.json", entries)
    [found] = read_caption_choice(tmp_path)
    assert {skip.id: skip.reason for skip in found.skips} == {
        "swap_obj/2": "the entry is not a JSON object",
        "swap_obj/3": "a caption is missing",
        "swap_obj/4": "the entry names no image",
        "swap_obj/5": "a caption is not valid Unicode",
    }
    assert len(found.cases) == 3
    assert [(s.id, "03.jpg" in s.reason) for s in skips(found.images)] == [("03.jpg", True)]


def test_images_that_are_all_missing_say_which_option_to_give(tmp_path: Path) -> None:
    write(tmp_path / "swap_att.json", SWAP)
    with pytest.raises(DataError, match=r"not one of the 2 images .*--images: COCO's val2017"):
        read_caption_choice(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("3", "neither a list nor a mapping"),
        ({}, r"has no image column; its columns are \(none\).*sugar-crepe"),
        ([{"image": "a.jpg", "caption": ["one", "two"]}], "no image with several captions"),
        ([{"caption": "a", "negative_caption": "b"}], "no image column"),
    ],
)
def test_a_file_of_another_form_stops(tmp_path: Path, content: Any, message: str) -> None:
    write(tmp_path / "swap_att.json", content)
    with pytest.raises(DataError, match=message):
        read_caption_choice(tmp_path)


def test_nothing_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*RAIVNLab/sugar-crepe"):
        read_caption_choice(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no file that ends in .json or .parquet or .jsonl"):
        read_caption_choice(tmp_path)
    (tmp_path / "notes.txt").write_text("no table")
    with pytest.raises(DataError, match="not a table that can be read"):
        read_caption_choice(tmp_path / "notes.txt")


def test_files_have_no_splits(tmp_path: Path) -> None:
    write(
        tmp_path / "a.json", {"0": {"filename": "1.jpg", "caption": "a", "negative_caption": "b"}}
    )
    write(tmp_path / "1.jpg", picture("red"))
    for source in (tmp_path, tmp_path / "a.json"):
        with pytest.raises(UsageError, match="has no splits, so no 'test'"):
            read_caption_choice(source, split="test")
