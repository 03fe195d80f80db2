import json
from pathlib import Path

import pytest
from benchmark_toys import BlindEncoder, colour_model, picture, write

from lateen.errors import DataError
from lateen.evaluation import evaluate


def sugarcrepe(root: Path, files: dict[str, list[tuple[str, str]]]) -> Path:
    """Right and wrong caption of a picture of each file's entries; the picture is red."""
    write(root / "images" / "red.jpg", picture("red", kind="JPEG"))
    for name, pairs in files.items():
        entries = {
            str(i): {"filename": "red.jpg", "caption": right, "negative_caption": wrong}
            for i, (right, wrong) in enumerate(pairs)
        }
        write(root / f"{name}.json", entries)
    return root


def aro(root: Path, groups: dict[str, list[bool]], kind: str) -> Path:
    """Entries of a relation (or attributes) whose right caption is what the box shows or not."""
    write(root / "images" / "1.jpg", picture("blue", "red"))
    entries = []
    for group, solved in groups.items():
        for fits in solved:
            captions = ("red", "blue") if fits else ("blue", "red")
            entries.append({
                "image_path": "1.jpg", "bbox_x": 16, "bbox_y": 4, "bbox_w": 16, "bbox_h": 20,
                "true_caption": captions[0], "false_caption": captions[1],
                kind: group.split("_") if kind == "attributes" else group,
            })  # fmt: skip
    write(root / "visual_genome.json", entries)
    return root


def test_accuracy_by_file_and_its_mean(tmp_path: Path):
    files = {
        "swap_att": [("red", "blue"), ("blue", "red"), ("red", "red"), ("red", "white")],
        "add_obj": [("red", "red and blue")],
    }
    result = evaluate(colour_model(), "caption-choice", data=sugarcrepe(tmp_path, files))
    assert result["categories"]["swap_att"] == {
        "accuracy": 50, "chance": 50, "examples": 4, "left_out": 0,
    }  # fmt: skip
    assert result["categories"]["add_obj"]["accuracy"] == 100
    assert (result["accuracy"], result["chance"]) == (75, 50)
    assert (result["examples"], result["skipped"], result["left_out"]) == (5, 0, 0)
    json.dumps(result)


def test_a_model_that_does_not_read_the_difference_scores_nothing(tmp_path: Path):
    data = sugarcrepe(tmp_path, {"swap_att": [("red on blue", "blue on red"), ("red", "red!")]})
    assert evaluate(colour_model(), "caption-choice", data=data)["accuracy"] == 0


def test_a_model_that_sees_nothing_goes_by_the_captions_alone(tmp_path: Path):
    data = sugarcrepe(tmp_path, {"swap_att": [("red", "blue"), ("blue", "red")]})
    assert evaluate(colour_model(BlindEncoder()), "caption-choice", data=data)["accuracy"] == 50


def test_boxes_are_what_is_encoded_and_relations_count_alike(tmp_path: Path):
    data = aro(tmp_path, {"on": [True, True, True], "under": [False]}, "relation_name")
    category = evaluate(colour_model(), "caption-choice", data=data)["categories"]["visual_genome"]
    assert (category["accuracy"], category["macro_accuracy"]) == (75, 50)
    assert category["by_group"] == {
        "on": {"accuracy": 100, "examples": 3}, "under": {"accuracy": 0, "examples": 1},
    }  # fmt: skip


def test_rare_attributes_do_not_count_in_the_mean_over_attributes(tmp_path: Path):
    groups = {"old_wet": [True] * 25, "big_red": [False] * 24, "dry_new": [False] * 25}
    result = evaluate(colour_model(), "caption-choice", data=aro(tmp_path, groups, "attributes"))
    category = result["categories"]["visual_genome"]
    assert category["macro_accuracy"] == 50
    assert category["by_group"]["big_red"] == {"accuracy": 0, "examples": 24}
    assert category["accuracy"] == pytest.approx(100 * 25 / 74)


def test_chance_follows_from_how_many_captions_there_are(tmp_path: Path):
    write(tmp_path / "a.jpg", picture("red"))
    options = [["red", "blue"], ["red", "blue", "white", "green", "black"]]
    entries = [{"image": "a.jpg", "caption_options": captions} for captions in options]
    write(tmp_path / "order.json", entries)
    result = evaluate(colour_model(), "caption-choice", data=tmp_path)
    assert (result["accuracy"], result["chance"]) == (100, 35)


def test_what_cannot_be_used_is_left_out_of_its_file(tmp_path: Path):
    data = sugarcrepe(tmp_path, {"swap_att": [("red", "blue"), ("", "red")]})
    entries = {"0": {"filename": "no.jpg", "caption": "a", "negative_caption": "b"}}
    write(data / "add_att.json", {**json.loads((data / "swap_att.json").read_text()), **{
        str(i + 2): entry for i, entry in enumerate(entries.values())
    }})  # fmt: skip
    result = evaluate(colour_model(), "caption-choice", data=data)
    assert {name: c["left_out"] for name, c in result["categories"].items()} == {
        "add_att": 2, "swap_att": 1,
    }  # fmt: skip
    assert (result["examples"], result["left_out"], result["skipped"]) == (2, 3, 3)
    assert {example["id"] for example in result["left_out_examples"]} == {
        "add_att/1", "add_att/2", "swap_att/1",
    }  # fmt: skip


def test_nothing_there_stops(tmp_path: Path):
    with pytest.raises(DataError, match=r"no file that ends in .json"):
        evaluate(colour_model(), "caption-choice", data=tmp_path)
