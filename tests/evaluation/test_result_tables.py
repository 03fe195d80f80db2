from __future__ import annotations

from typing import Any

import pytest

from lateen.evaluation.tables import result_tables, subject, subject_and_split

WAY = {"R@1": 10.0, "R@5": 30.0, "R@10": 50.0, "median_rank": 9.0}


def rows(result: dict[str, Any], table: int = 0) -> list[list[str]]:
    return result_tables(result)[table].cells()


def test_retrieval_stands_above_chance_with_its_folds() -> None:
    both = {"text_to_image": WAY, "image_to_text": WAY, "rsum": 180.0}
    result = {"task": "retrieval", **both, "images": 100, "captions": 500, "skipped": 3,
              "folds": {"count": 5, **both}}  # fmt: skip
    whole, parts = result_tables(result)
    assert whole.cells()[1] == ["chance", "1.0", "5.0", "10.0", "50.0"]
    assert whole.note == "100 images, 500 captions. rsum 180.0 of 600. 3 skipped."
    assert parts.title == "Mean over 5 parts"
    assert parts.cells()[1][1:4] == ["5.0", "25.0", "50.0"]  # among 20 images


def test_classification_names_the_sets_own_metric_and_what_is_confused() -> None:
    per_class = {f"c{i}": float(i) for i in range(3)}
    result = {
        "task": "classification", "top1": 40.0, "top5": 100.0, "mean_per_class": 45.0,
        "metric": "mean_per_class", "set": "pets", "split": "test", "classes": 4, "images": 9,
        "per_class": per_class,
        "most_confused": [{"class": "a", "taken_for": "b", "images": 2, "percent": 50.0}],
    }  # fmt: skip
    first, classes, confused = result_tables(result)
    assert first.title == "Zero-shot classification: pets, test"
    assert first.cells() == [
        ["zero-shot", "40.0", "100.0", "45.0", "0.0"], ["chance", "25.0", "100.0", "25.0", "–"]
    ]  # fmt: skip
    assert first.note.endswith("The metric of pets is mean per class.")
    assert [row[0] for row in classes.cells()] == ["c0", "c1", "c2"]
    assert confused.cells() == [["a", "b", "50.0", "2"]]
    many = {**result, "per_class": {f"c{i}": 1.0 for i in range(26)}}
    assert len(result_tables(many)) == 2


def test_probes_have_a_row_for_each_kind_of_features_and_chance() -> None:
    shared = {"chance": 10.0, "images": 800, "classes": 10, "train": None, "skipped": 0}
    knn = {"task": "knn", "encoder": {"10": 84.0}, "embedding": {"10": 83.0}, "k_left_out": [200],
           **shared}  # fmt: skip
    assert rows(knn) == [["frozen encoder", "84.0"], ["aligned embedding", "83.0"],
                         ["chance", "10.0"]]  # fmt: skip
    assert "Too few images for k = 200." in result_tables(knn)[0].note
    probe = {"task": "linear-probe", "embedding": {"accuracy": 85.0, "c": [1.0, 0.1, 1.0]},
             **shared, "folds": 5}  # fmt: skip
    assert rows(probe) == [["aligned embedding", "85.0", "1, 0.1"], ["chance", "10.0", ""]]
    assert result_tables(probe)[0].note == "800 images, 10 classes; 5 folds."
    learned = {**probe, "embedding": {"accuracy": 85.0, "c": 0.5}, "train": "train",
               "train_images": 1000}  # fmt: skip
    assert "learned from 1,000 images of train" in result_tables(learned)[0].note


def test_winoground_by_what_is_swapped() -> None:
    scores = {"text": 30.0, "image": 20.0, "group": 10.0}
    tags = {"Object": {**scores, "examples": 141}}
    result = {"task": "winoground", **scores, "examples": 400, "left_out": 2, "set": "winoground",
              "chance": {"text": 25.0, "image": 25.0, "group": 100 / 6},
              "by_tag": {"collapsed_tag": tags}}  # fmt: skip
    [table] = result_tables(result)
    assert table.title == "Winoground"
    assert table.cells() == [["all", "30.0", "20.0", "10.0", "400"],
                             ["chance", "25.0", "25.0", "16.7", "–"],
                             ["Object", "30.0", "20.0", "10.0", "141"]]  # fmt: skip
    assert table.note == "By what the captions swap. 2 left out."


def test_caption_choice_by_file_with_the_mean_over_groups_where_there_is_one() -> None:
    parts = {"a": {"accuracy": 80.0, "chance": 50.0, "examples": 10, "macro_accuracy": 70.0},
             "b": {"accuracy": 60.0, "chance": 20.0, "examples": 30}}  # fmt: skip
    result = {"task": "caption-choice", "accuracy": 70.0, "chance": 35.0, "examples": 40,
              "categories": parts}  # fmt: skip
    assert rows(result) == [["a", "80.0", "50.0", "70.0", "10"], ["b", "60.0", "20.0", "–", "30"],
                            ["mean", "70.0", "35.0", "–", "40"]]  # fmt: skip
    one = {**result, "categories": {"b": parts["b"]}}
    assert rows(one) == [["b", "60.0", "20.0", "30"]]


def test_mmvp_by_pattern_and_how_alike_pairs_are() -> None:
    both = {"pair_accuracy": 20.0, "statement_accuracy": 30.0}
    five = {"min": 0.1, "q25": 0.2, "median": 0.3, "q75": 0.4, "max": 0.5, "mean": 0.3}
    result = {
        "task": "mmvp",
        **both,
        "chance": 25.0,
        "pairs": 135,
        "patterns": {"Text": {**both, "pairs": 15}},
        "similarity": {"model": five},
    }
    patterns, alike = result_tables(result)
    assert patterns.cells() == [["mean", "20.0", "30.0", "135"], ["chance", "25.0", "25.0", "–"],
                                ["Text", "20.0", "30.0", "15"]]  # fmt: skip
    assert alike.cells() == [["model", "0.100", "0.200", "0.300", "0.400", "0.500"]]


def test_dense_tasks_stand_beside_baselines() -> None:
    score = {"miou": 20.0, "pixel_accuracy": 60.0}
    result = {"task": "segmentation", **score, "chance": {**score, "miou": 1.0},
              "best_constant": {"class": "road", **score}, "per_class": {"a": 9.0, "b": 1.0},
              "images": 5, "classes": 11, "short_side": 448, "window": 448, "stride": 224,
              "attention": "kk", "residual": False, "set": "voc20 (/data/VOC2012)"}  # fmt: skip
    scores, classes = result_tables(result)
    assert scores.title == "Open-vocabulary segmentation: voc20"
    assert [row[:2] for row in scores.cells()] == [["zero-shot", "20.0"], ["always 'road'", "20.0"],
                                                   ["chance", "1.0"]]  # fmt: skip
    assert "kk attention without residual" in scores.note
    assert classes.cells() == [["b", "1.0"], ["a", "9.0"]]
    part = {
        "macro_recall": 50.0,
        "macro_precision": 70.0,
        "rows_tested": 8,
        "per_class": {"a": 5.0},
        "baseline": {"macro_recall": 10.0, "macro_precision": 20.0},
    }
    probe = {"task": "patch-probe", "local": part, "global": part, "images": 40, "classes": 11,
             "images_tested": 8}  # fmt: skip
    assert [row[1] for row in rows(probe)] == ["50.0", "10.0", "50.0", "10.0"]
    attention = {"task": "attention", "images": 2, "layer": -2,
                 "encoders": [{"encoder": "org/vit", "heads": 3, "grid": [14, 14],
                               "entropy": 80.0}]}  # fmt: skip
    assert rows(attention) == [["vit", "3", "14×14", "80.0"]]


def test_a_task_of_ones_own_has_a_table_of_its_numbers() -> None:
    result = {"task": "counting", "mean_error": 1.5, "exact": True, "names": ["a"], "skipped": 2}
    [table] = result_tables(result)
    assert table.title == "counting"
    assert table.cells() == [["mean error", "1.50"], ["skipped", "2.00"]]


@pytest.mark.parametrize(
    ("result", "name"),
    [
        ({"set": "pets", "options": {"data": "x/y"}}, "pets"),
        ({"options": {"images": "x/photos", "captions": "x/dev.csv"}}, "dev.csv"),
        ({"options": {"data": "facebook/winoground"}}, "winoground"),
        ({"options": {"images": "x/camvid/images"}}, "camvid"),
        ({"options": {"data": "/mnt/food/test.parquet"}}, "food"),
        ({"options": {}}, ""),
    ],
)
def test_what_a_result_is_of(result: dict[str, Any], name: str) -> None:
    assert subject(result) == name


def test_a_split_is_part_of_the_name_wherever_it_stands() -> None:
    assert subject_and_split({"set": "pets", "split": "val"}) == "pets, val"
    assert subject_and_split({"options": {"data": "coco", "split": "test"}}) == "coco, test"
