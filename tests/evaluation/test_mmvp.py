import json
from pathlib import Path

import pytest
from benchmark_toys import BlindEncoder, colour_model, mmvp_folder
from PIL import Image

from lateen.errors import ModelError, UsageError
from lateen.evaluation import evaluate
from lateen.evaluation.tasks.mmvp import PATTERNS, TEMPLATES

QUESTIONS = [
    (1, "Color", "red"), (2, "Color", "blue"),
    (3, "Color", "green"), (4, "Color", "white"),
    (5, "Text", "black"), (6, "Text", "yellow"),
]  # fmt: skip


def test_pairs_by_pattern_and_their_mean(tmp_path: Path):
    # 4 shows what 3 says, so it picks 3's statement; both of 5 and 6 are told apart.
    data = mmvp_folder(tmp_path, QUESTIONS, images={4: ("green",)})
    result = evaluate(colour_model(), "mmvp", data=data)
    assert result["patterns"] == {
        "Color and Appearance": {"pair_accuracy": 50, "statement_accuracy": 50, "pairs": 2},
        "Text": {"pair_accuracy": 100, "statement_accuracy": 100, "pairs": 1},
    }
    assert (result["pair_accuracy"], result["statement_accuracy"]) == (75, 75)
    assert (result["chance"], result["pairs"], result["left_out"]) == (25, 3, 0)
    assert result["templates"] == list(TEMPLATES) == ["a photo of {}"]
    json.dumps(result)


def test_images_choosing_statements_is_not_statements_choosing_images(tmp_path: Path):
    # Image 2 is nearer than image 1 to both statements; each image is nearer to its own.
    rows = [(1, "State", "red blue green"), (2, "State", "red")]
    images = {
        1: ("red", "blue", "green", "white", "black"),
        2: (*["red"] * 5, "blue", "green", "green"),
    }
    result = evaluate(colour_model(), "mmvp", data=mmvp_folder(tmp_path, rows, images=images))
    assert (result["pair_accuracy"], result["statement_accuracy"]) == (100, 0)


def test_all_nine_patterns_in_the_papers_order(tmp_path: Path):
    rows = []
    for index, kind in enumerate(sorted(PATTERNS)):
        rows += [(2 * index + 1, kind, "red"), (2 * index + 2, kind, "blue")]
    result = evaluate(colour_model(), "mmvp", data=mmvp_folder(tmp_path, rows))
    assert list(result["patterns"]) == list(PATTERNS.values())
    assert result["pair_accuracy"] == 100


def test_a_model_that_sees_nothing_scores_nothing_and_finds_all_pairs_alike(tmp_path: Path):
    data = mmvp_folder(tmp_path, QUESTIONS)
    result = evaluate(colour_model(BlindEncoder()), "mmvp", data=data)
    assert (result["pair_accuracy"], result["statement_accuracy"]) == (0, 0)
    for name in ("model", "encoder"):
        assert list(result["similarity"][name].values()) == pytest.approx([1] * 6)


def test_similarities_worked_by_hand_beside_a_baseline(tmp_path: Path):
    images = {1: ("red", "blue"), 3: ("green",), 4: ("green",)}
    data = mmvp_folder(tmp_path, QUESTIONS, images=images)
    result = evaluate(
        colour_model(), "mmvp", data=data, baseline=colour_model(BlindEncoder())
    )  # fmt: skip
    cosines = [0, 0.5**0.5, 1]  # black, yellow; half blue, blue; green, green
    expected = {"min": 0, "q25": cosines[1] / 2, "median": cosines[1],
                "q75": (1 + cosines[1]) / 2, "max": 1, "mean": sum(cosines) / 3}  # fmt: skip
    assert result["similarity"]["encoder"] == pytest.approx(expected, abs=1e-3)
    assert result["similarity"]["model"] == pytest.approx(expected, abs=1e-3)
    assert result["similarity"]["baseline"]["min"] == pytest.approx(1)
    assert result["conditions"]["baseline"] != result["conditions"]["model"]


def test_a_ready_clip_is_a_baseline_by_its_folder(tmp_path: Path, clip_folder: Path):
    data = mmvp_folder(tmp_path, QUESTIONS)
    result = evaluate(colour_model(), "mmvp", data=data, baseline=clip_folder)
    assert -1 <= result["similarity"]["baseline"]["mean"] <= 1
    with pytest.raises(ModelError, match="nowhere is not a lateen model"):
        evaluate(colour_model(), "mmvp", data=data, baseline="nowhere")


def test_the_picture_is_written_only_where_asked(tmp_path: Path):
    data = mmvp_folder(tmp_path / "data", QUESTIONS)
    assert "pictures" not in evaluate(colour_model(), "mmvp", data=data)
    result = evaluate(colour_model(), "mmvp", data=data, out=tmp_path / "out")
    [path] = result["pictures"]
    assert path == str(tmp_path / "out" / "similarity.png")
    with Image.open(path) as image:
        assert image.width > image.height > 400


def test_pairs_that_lack_an_image_are_left_out_of_accuracy_and_similarity(tmp_path: Path):
    data = mmvp_folder(tmp_path, [*QUESTIONS, (9, "Text", "red")], images={3: ()})
    (data / "MLLM_VLM Images" / "Text" / "5.jpg").write_bytes(b"damaged")
    result = evaluate(colour_model(), "mmvp", data=data, baseline=colour_model())
    assert (result["pairs"], result["left_out"], result["skipped"]) == (1, 3, 3)
    assert list(result["patterns"]) == ["Color and Appearance"]
    assert {example["id"] for example in result["left_out_examples"]} == {"3-4", "5-6", "9-10"}
    assert result["similarity"]["baseline"] == result["similarity"]["model"]


def test_own_templates_are_used(tmp_path: Path):
    data = mmvp_folder(tmp_path, QUESTIONS)
    plain = evaluate(colour_model(), "mmvp", data=data)
    other = evaluate(colour_model(), "mmvp", data=data, templates=["{} in red", "{}"])
    assert other["templates"] == ["{} in red", "{}"]
    assert other["conditions"] == plain["conditions"]  # the templates tell them apart
    with pytest.raises(UsageError, match="no place for the caption"):
        evaluate(colour_model(), "mmvp", data=data, templates=["red"])
