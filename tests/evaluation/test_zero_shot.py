from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from benchmark_toys import BlindEncoder, colour_model
from labelled_toys import benchmark_folder, class_folder, picture, rows
from PIL import Image

from lateen.errors import DataError, UsageError
from lateen.evaluation import evaluate
from lateen.evaluation.task import TASKS
from lateen.evaluation.tasks.classification import embed_classes, evaluate_classification
from lateen.features import Store
from lateen.model import AlignedModel

COLOURS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def model() -> AlignedModel:
    return colour_model()


def test_pictures_are_told_apart_by_the_names_of_their_classes(
    model: AlignedModel, tmp_path: Path
) -> None:
    """Red, green and blue pictures; one of three blue ones lies among the red."""
    class_folder(tmp_path / "set", COLOURS)
    (tmp_path / "set/blue/2.png").rename(tmp_path / "set/red/blue.png")
    result = evaluate(model, "classification", images=tmp_path / "set", cache=tmp_path / "cache")
    assert result["top1"] == pytest.approx(100 * 8 / 9)
    assert result["mean_per_class"] == pytest.approx((75 + 100 + 100) / 3)
    assert result["per_class"] == {"blue": 100, "green": 100, "red": 75}
    assert (result["metric"], result["score"]) == ("top1", result["top1"])
    assert (result["images"], result["classes"], result["skipped"]) == (9, 3, 0)
    assert result["chance"]["top1"] == pytest.approx(100 / 3)
    assert result["confusion"]["names"] == ["blue", "green", "red"]
    assert result["confusion"]["counts"] == [[2, 0, 0], [0, 3, 0], [1, 0, 3]]
    assert result["most_confused"] == [
        {"class": "red", "taken_for": "blue", "images": 1, "percent": 25.0}
    ]
    assert result["set"] is None
    assert result["named_by"] == "the labels of the data"
    assert json.loads(json.dumps(result)) == result
    again = evaluate(model, "classification", data=tmp_path / "set", cache=tmp_path / "cache")
    assert again == {**result, "options": {"data": str(tmp_path / "set")}}


def test_a_set_has_its_own_metric_and_prompts(model: AlignedModel, tmp_path: Path) -> None:
    names = ["red", *(f"other {i}" for i in range(35)), "blue"]
    benchmark_folder(
        tmp_path, names, test=[("red", 0), ("red", 36), ("blue", 36)], templates="{c}\n{c}!\n"
    )
    result = evaluate_classification(model, data=tmp_path, set="pets")
    assert (result["metric"], result["score"]) == ("mean_per_class", 75)
    assert result["top1"] == pytest.approx(200 / 3)
    assert (result["set"], result["split"], result["named_by"]) == (
        "pets",
        "test",
        "classnames.txt",
    )
    assert result["templates"] == ["{}", "{}!"]
    assert result["templates_verbatim"]
    given = evaluate_classification(model, data=tmp_path, templates=["this is {}"])
    assert given["templates"] == ["this is {}"]
    assert given["metric"] == "top1"


def test_templates_and_class_names_from_files(model: AlignedModel, tmp_path: Path) -> None:
    class_folder(tmp_path / "set", ["red", "blue"])
    (tmp_path / "t.txt").write_text("a {c} thing\n")
    (tmp_path / "c.txt").write_text("blue\tred\nred\tblue\n")
    result = evaluate_classification(
        model, images=tmp_path / "set", templates=tmp_path / "t.txt", classes=tmp_path / "c.txt"
    )
    # Named crosswise, everything is wrong.
    assert result["top1"] == 0
    assert result["templates"] == ["a {} thing"]
    with pytest.raises(UsageError, match="no place"):
        evaluate_classification(model, images=tmp_path / "set", templates=["a thing"])
    with pytest.raises(UsageError, match="no template"):
        evaluate_classification(model, images=tmp_path / "set", templates=[])


def test_a_model_that_sees_nothing_scores_no_more_than_chance(tmp_path: Path) -> None:
    class_folder(tmp_path, COLOURS)
    result = evaluate_classification(colour_model(BlindEncoder()), images=tmp_path)
    assert result["top1"] <= result["chance"]["top1"] + 1e-9


def test_classes_of_the_same_name_count_as_wrong_and_are_said(
    model: AlignedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    benchmark_folder(tmp_path, ["red", "blue", "red"], test=[("red", 0), ("red", 2), ("blue", 1)])
    with caplog.at_level(logging.WARNING, logger="lateen"):
        result = evaluate_classification(model, data=tmp_path)
    assert result["same_name"] == ["red"]
    assert result["per_class"]["blue"] == 100
    assert result["top1"] == pytest.approx(100 / 3)
    assert "'red'" in caplog.text


def test_a_class_is_the_mean_of_its_prompts(
    model: AlignedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = ["{}", "{} and green"]
    text = model.encode_text(["red", "red and green", "blue", "blue and green"])
    means = torch.stack([text[:2].mean(0), text[2:].mean(0), text[:2].mean(0)])
    wanted = torch.nn.functional.normalize(means, dim=1)
    torch.testing.assert_close(embed_classes(model, ["red", "blue", "red"], templates), wanted)
    monkeypatch.setattr("lateen.evaluation.features._CLASSES", 1)
    torch.testing.assert_close(embed_classes(model, ["red", "blue", "red"], templates), wanted)


def test_unreadable_and_unlabelled_images_are_counted(model: AlignedModel, tmp_path: Path) -> None:
    class_folder(tmp_path / "set", ["red", "blue"])
    (tmp_path / "set/red/bad.png").write_bytes(b"no")
    (tmp_path / "set/stray.png").write_bytes((tmp_path / "set/red/0.png").read_bytes())
    result = evaluate_classification(model, images=tmp_path / "set", cache=tmp_path / "cache")
    assert (result["images"], result["skipped"], result["unlabelled"]) == (6, 1, 1)
    assert Store.open(tmp_path / "cache/classes").skipped[0]["id"] == "red/bad.png"


def test_no_labelled_image_that_can_be_read_is_an_error(
    model: AlignedModel, tmp_path: Path
) -> None:
    class_folder(tmp_path / "set", ["red", "blue"], count=1)
    for colour in ("red", "blue"):
        (tmp_path / "set" / colour / "0.png").write_bytes(b"no")
    (tmp_path / "set/stray.png").write_bytes(picture("red"))
    with pytest.raises(DataError, match=r"not one labelled image .* could be read"):
        evaluate_classification(model, images=tmp_path / "set")


def test_numbered_classes_need_names(model: AlignedModel, tmp_path: Path) -> None:
    rows([("red", 0), ("blue", 1)]).save_to_disk(tmp_path / "n")
    with pytest.raises(DataError, match=r"numbers its 2 classes.*--classes"):
        evaluate_classification(model, data=tmp_path / "n")


def test_one_source_is_needed(model: AlignedModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="classification is given no images"):
        evaluate_classification(model)
    with pytest.raises(UsageError, match="both --images and --data"):
        evaluate_classification(model, images=tmp_path, data=tmp_path)


def test_the_picture_is_written_where_it_is_asked_for(model: AlignedModel, tmp_path: Path) -> None:
    class_folder(tmp_path / "set", COLOURS)
    result = evaluate_classification(model, images=tmp_path / "set", out=tmp_path / "out")
    assert result["pictures"] == {"confusion": str(tmp_path / "out/confusion.png")}
    with Image.open(tmp_path / "out/confusion.png") as image:
        assert image.format == "PNG"


def test_other_labels_of_the_same_images_are_other_conditions(
    model: AlignedModel, tmp_path: Path
) -> None:
    table = rows([("red", 0), ("blue", 1)], ["red", "blue"], other=["blue", "red"])
    table.save_to_disk(tmp_path / "d")
    one = evaluate_classification(model, data=tmp_path / "d")
    two = evaluate_classification(model, data=tmp_path / "d", column="other")
    assert (one["top1"], two["top1"]) == (100, 0)
    assert one["conditions"]["data"] != two["conditions"]["data"]
    assert one["conditions"]["model"] == two["conditions"]["model"]


def test_a_result_says_which_templates_it_had(
    model: AlignedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folder(tmp_path / "set", ["red", "blue"])
    (tmp_path / "set/templates.txt").write_text("all {c}\nonly {c}\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    result = evaluate(model, "classification", images=tmp_path / "set", templates="openai")
    assert result["templates"] == ["all {}", "only {}"]
    assert result["templates_verbatim"]
    assert result["templates_from"] == "openai: templates.txt beside the data"
    assert result["options"]["templates"] == "openai"
    [table, *_] = TASKS["classification"].tables(result)
    assert "2 prompts a class (openai: templates.txt beside the data)." in table.note
    with pytest.raises(UsageError, match=r"no templates 'opnai'.*openai"):
        evaluate(model, "classification", images=tmp_path / "set", templates="opnai")
    own = evaluate(model, "classification", images=tmp_path / "set")
    assert own["templates_from"] == "lateen's own"
    (tmp_path / "many.json").write_text('{"imagenet1k": ["a {c}"], "cifar10": ["b {c}", "{c}"]}')
    many = evaluate_classification(model, images=tmp_path / "set", templates=tmp_path / "many.json")
    assert (many["templates"], many["templates_from"]) == (
        ["a {}"], f"{tmp_path / 'many.json'}, imagenet1k",
    )  # fmt: skip
