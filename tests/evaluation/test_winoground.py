import json
from pathlib import Path

import pytest
from benchmark_toys import (
    BlindEncoder,
    colour_model,
    picture,
    winoground_images,
    winoground_row,
    write,
)

from lateen.errors import DataError, UsageError
from lateen.evaluation import TASKS, evaluate

SOLVED = winoground_row(0, "red", "blue")
WORD_ORDER = winoground_row(1, "red on green", "green on red", tag="Verb", secondary="Series")


def folder(root: Path, rows, images=None) -> Path:
    write(root / "examples.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for name, data in {**winoground_images(rows), **(images or {})}.items():
        write(root / "images" / f"{name}.png", data)
    return root


def test_scores_worked_by_hand_and_by_tag(tmp_path: Path):
    # Both captions of 2 are nearer to its second image, and each image is nearer to its own.
    text_only = winoground_row(2, "red blue green", "red", tag="Verb")
    images = {
        "ex_2_img_0": picture("red", "blue", "green", "white", "black"),
        "ex_2_img_1": picture(*["red"] * 5, "blue", "green", "green"),
    }
    data = folder(tmp_path, [SOLVED, WORD_ORDER, text_only], images)
    result = evaluate(colour_model(), "winoground", data=data)
    third = 100 / 3
    assert result["text"] == pytest.approx(2 * third)
    assert result["image"] == pytest.approx(third)
    assert result["group"] == pytest.approx(third)
    assert result["chance"] == {"text": 25, "image": 25, "group": pytest.approx(50 / 3)}
    assert (result["examples"], result["left_out"], result["skipped"]) == (3, 0, 0)
    tags = result["by_tag"]
    assert tags["collapsed_tag"] == {
        "Object": {"text": 100, "image": 100, "group": 100, "examples": 1},
        "Relation": {"text": 50, "image": 0, "group": 0, "examples": 2},
    }
    assert tags["secondary_tag"]["Series"]["examples"] == 1
    assert {value: tags["num_main_preds"][value]["examples"] for value in ("1", "2")} == {
        "1": 2, "2": 1,
    }  # fmt: skip
    assert set(result["conditions"]) == {"model", "data", "versions"}
    json.dumps(result)


def test_a_model_that_does_not_see_or_does_not_read_order_scores_nothing(tmp_path: Path):
    data = folder(tmp_path, [SOLVED, WORD_ORDER])
    blind = evaluate(colour_model(BlindEncoder()), "winoground", data=data)
    assert [blind[score] for score in ("text", "image", "group")] == [0, 0, 0]
    bag = evaluate(colour_model(), "winoground", data=folder(tmp_path / "order", [WORD_ORDER]))
    assert [bag[score] for score in ("text", "image", "group")] == [0, 0, 0]


def test_an_example_without_an_image_is_left_out_and_named(tmp_path: Path):
    data = folder(tmp_path, [SOLVED, WORD_ORDER])
    (tmp_path / "images" / "ex_1_img_1.png").unlink()
    result = evaluate(colour_model(), "winoground", data=data)
    assert (result["group"], result["examples"], result["left_out"]) == (100, 1, 1)
    [example] = result["left_out_examples"]
    assert example["id"] == "1"
    assert "ex_1_img_1.png" in example["reason"]
    assert "Series" not in result["by_tag"]["secondary_tag"]


def test_the_result_names_the_model_and_the_data(tmp_path: Path):
    first = evaluate(colour_model(), "winoground", data=folder(tmp_path / "a", [SOLVED]))
    other = evaluate(colour_model(), "winoground", data=folder(tmp_path / "b", [WORD_ORDER]))
    blind = evaluate(
        colour_model(BlindEncoder()), "winoground", data=folder(tmp_path / "c", [SOLVED])
    )
    keys = [(r["conditions"]["model"], r["conditions"]["data"]) for r in (first, other, blind)]
    assert keys[0][0] == keys[1][0] != keys[2][0]
    assert keys[0][1] == keys[2][1] != keys[1][1]  # the same data, whatever the model


def test_it_is_a_task_that_needs_its_data():
    assert TASKS["winoground"].options == {
        "data": True, "images": False, "split": False, "cache": False,
    }  # fmt: skip
    with pytest.raises(UsageError, match="winoground needs --data"):
        evaluate(colour_model(), "winoground")
    with pytest.raises(DataError, match="there is no nowhere"):
        evaluate(colour_model(), "winoground", data="nowhere")
