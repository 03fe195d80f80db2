from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lateen.errors import DataError, UsageError
from lateen.evaluation import Comparison, ComparisonRow, compare
from lateen.evaluation.comparison import _best
from lateen.evaluation.intervals import Redrawn, resampled
from lateen.evaluation.published import AVERAGES, KUEA_SETS
from lateen.evaluation.tasks.classification import classification_statistics


def put(path: Path, model: str, **more: Any) -> Path:
    """A result of classification, with the conditions that matter."""
    result = {
        "task": "classification", "top1": 50.0, "top5": 90.0, "mean_per_class": 40.0,
        "images": 3_669,
        "set": "pets", "templates": ["a {}"], "conditions": {"model": model, "data": "d1"},
        **more,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))
    return path


def kept(right: Sequence[bool], ids: str = "image") -> dict[str, Any]:
    """What a result keeps of images, of which the first are right."""
    ranks = [1 if each else 9 for each in right]
    arrays = {"ranks": ranks, "classes": [0] * len(ranks)}
    facts = resampled(classification_statistics, arrays, [f"{ids}{i}" for i in range(len(ranks))])
    return {"top1": 100 * sum(right) / len(right), **facts}


def retrieval(path: Path, model: str, rank: float, **more: Any) -> Path:
    way = {"R@1": 10.0, "R@5": 20.0, "R@10": 30.0, "median_rank": rank}
    return put(path, model, task="retrieval", set="coco", text_to_image=way, image_to_text=way,
               templates=None, **more)  # fmt: skip


def test_a_row_for_each_number_and_a_column_for_each_model(tmp_path: Path) -> None:
    put(tmp_path / "one" / "pets.json", "m1")
    retrieval(tmp_path / "one" / "coco.json", "m1", 5.0)
    put(tmp_path / "two" / "pets.json", "m2", top1=60.0)
    found = compare([tmp_path / "one", tmp_path / "two"])
    assert found.labels == ("one", "two")
    rows = {(row.task, row.metric): row for row in found.rows}
    assert rows["classification", "top-1"].values == (50.0, 60.0)
    assert rows["retrieval", "T2I R@1"].values == (10.0, None)
    assert found.rows[0].task == "retrieval"  # the order of TASKS
    cells = found.table().cells()
    assert cells[0][:5] == ["retrieval", "coco (3,669 of 5,000 images)", "T2I R@1", "10.0", "–"]
    assert cells[1][:3] == ["", "", "T2I R@5"]
    assert ["", "", "mean per class", "40.0", "40.0"] in cells
    assert ["classification", "pets", "top-1", "50.0", "60.0"] in cells


def _pair(folder: Path, first: Sequence[bool], second: Sequence[bool], **more: Any) -> Comparison:
    put(folder / "a.json", "m1", **kept(first))
    put(folder / "b.json", "m2", **{**kept(second), **more})
    return compare([folder / "a.json", folder / "b.json"])


def _top1(comparison: Comparison) -> ComparisonRow:
    return next(row for row in comparison.rows if row.metric == "top-1")


def test_a_star_is_for_what_is_beyond_chance_image_by_image(tmp_path: Path) -> None:
    """20 points of 40 images: nothing where each is right on its own, all where one never loses."""
    images = range(40)
    apart = _pair(tmp_path / "1", [i < 20 for i in images], [i >= 12 for i in images])
    assert _top1(apart).values == (50, 70)
    assert _top1(apart).best == ()
    within = _pair(tmp_path / "2", [i < 20 for i in images], [i < 28 for i in images])
    assert _top1(within).values == (50, 70)
    assert _top1(within).best == (1,)
    assert "★ 70.0 (" in within.table().cells()[0][4]
    assert "No difference is beyond chance" in apart.table().note
    assert _top1(within).n == 40


def test_what_cannot_be_told_from_the_best_is_starred_with_it(tmp_path: Path) -> None:
    for name, right in (("a", 60), ("b", 61), ("c", 20)):
        put(tmp_path / f"{name}.json", name, **kept([i < right for i in range(100)]))
    assert _top1(compare([tmp_path / f"{name}.json" for name in "abc"])).best == (0, 1)


def test_five_images_tell_nothing_however_they_fall(tmp_path: Path) -> None:
    for count, best in ((5, ()), (6, (1,))):
        found = _pair(tmp_path / str(count), [False] * count, [True] * count)
        assert _top1(found).best == best


def test_equal_hits_are_a_tie_and_other_images_no_comparison(tmp_path: Path) -> None:
    right = [i % 3 == 0 for i in range(60)]
    assert _top1(_pair(tmp_path / "1", right, right)).best == ()
    other = _top1(_pair(tmp_path / "2", right, right, **kept([True] * 60, "photo")))
    assert (other.best, other.differs) == ((), ("images judged",))


def test_the_lowest_rank_is_the_best() -> None:
    draws = [Redrawn(np.full(100, rank), np.full(9, rank)) for rank in (7.0, 3.0)]
    assert _best([7.0, 3.0], draws, low=True) == (1,)
    assert _best([7.0, 3.0], draws) == (0,)
    assert _best([7.0, None], [draws[0], None]) == ()


def test_a_model_that_was_trained_on_the_images_has_no_star(tmp_path: Path) -> None:
    seen = {"trained_on": {"images": 30, "of": 40, "by": "image files", "chosen_on": 0}}
    found = _pair(tmp_path, [i < 20 for i in range(40)], [i < 39 for i in range(40)], **seen)
    assert _top1(found).best == ()
    assert found.table().cells()[0][-1] == "b: 30 of 40 images trained on"


def test_seeds_are_averaged_where_nothing_else_differs(tmp_path: Path) -> None:
    for seed, right in ((0, 20), (1, 30), (2, 25)):
        conditions = {"model": f"m{seed}", "data": "d1", "trained_alike": "k", "train_seed": seed}
        put(tmp_path / f"seed-{seed}" / "r.json", f"m{seed}",
            **{**kept([i < right for i in range(50)]), "conditions": conditions})  # fmt: skip
    other = {"model": "o", "data": "d1", "trained_alike": "other", "train_seed": 0}
    put(tmp_path / "other" / "r.json", "o",
        **{**kept([i < 5 for i in range(50)]), "conditions": other})  # fmt: skip
    folders = [tmp_path / name for name in ("seed-0", "seed-1", "seed-2", "other")]
    found = compare(folders)
    assert found.seeds == (3, 1)
    assert _top1(found).values == (50, 10)
    assert _top1(found).best == (0,)
    low, high = _top1(found).intervals[0] or (0, 0)
    assert low < 50 < high
    alone = compare(folders[:1])
    assert high - low > 0.8 * np.subtract(*reversed(_top1(alone).intervals[0] or (0, 0)))
    assert "(mean of 3 seeds)" in found.table().columns[3].name
    assert len(compare(folders, each_seed=True).labels) == 4


def test_a_part_of_a_set_is_marked_and_has_no_published_number(tmp_path: Path) -> None:
    put(tmp_path / "a.json", "m", set="imagenet", images=50_000, classes=1000,
        empty_classes=["x"] * 990)  # fmt: skip
    row = _top1(compare([tmp_path / "a.json"]))
    assert (row.set, row.short, row.published) == ("imagenet", "10 of 1,000 classes", ())
    put(tmp_path / "b.json", "m", set="imagenet", images=500, classes=1000)
    row = _top1(compare([tmp_path / "b.json"]))
    assert (row.set, row.short, row.published) == ("imagenet", "500 of 50,000 images", ())


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"conditions": {"model": "m2", "data": "d2"}}, "data"),
        ({"templates": ["{}"]}, "prompts"),
        ({"images": 3_668}, "images used"),
        ({"seed": 1}, "seed"),
        ({"options": {"window": 224}}, "window"),
        ({"templates_verbatim": True}, "prompts"),
    ],
)
def test_rows_that_cannot_be_compared_say_why_and_have_no_best(
    tmp_path: Path, other: dict[str, Any], told: str
) -> None:
    put(tmp_path / "one" / "pets.json", "m1", seed=0)
    values = {"top1": 60.0, "seed": 0, "conditions": {"model": "m2", "data": "d1"}}
    put(tmp_path / "two" / "pets.json", "m2", **{**values, **other})
    found = compare([tmp_path])
    assert {(row.best, row.differs) for row in found.rows} == {((), (told,))}
    assert found.table().cells()[0][-1] == f"not the same: {told}"
    assert "cannot be compared" in found.table().note


def test_the_same_data_by_another_name_is_one_row(tmp_path: Path) -> None:
    put(tmp_path / "one" / "pets.json", "m1")
    put(tmp_path / "two" / "x.json", "m2", set=None, options={"images": "my/pets-test"})
    found = compare([tmp_path / "one", tmp_path / "two"])
    assert {row.set for row in found.rows} == {"pets"}
    assert all(None not in row.values for row in found.rows)


def test_columns_are_models_wherever_their_files_lie(tmp_path: Path) -> None:
    """Below one place a model is one column, unless it has two results of the same."""
    put(tmp_path / "runs" / "a" / "pets" / "classification.json", "m1")
    retrieval(tmp_path / "runs" / "a" / "coco" / "retrieval.json", "m1", 5.0)
    put(tmp_path / "runs" / "b" / "pets.json", "m2")
    assert compare([tmp_path / "runs"]).labels == ("a", "b")
    put(tmp_path / "runs" / "a" / "again" / "classification.json", "m1", templates=["other {}"])
    assert compare([tmp_path / "runs"]).labels == ("again", "coco", "pets", "b")


def test_labels_are_made_distinct(tmp_path: Path) -> None:
    places = [put(tmp_path / run / "eval" / "pets.json", run).parent for run in ("a", "b")]
    assert compare(places).labels == ("a/eval", "b/eval")
    assert compare(places, ["x", "y"]).labels == ("x", "y")
    files = [put(tmp_path / "c" / f"{model}.json", model) for model in ("vit", "dino")]
    assert compare(files).labels == ("vit", "dino")
    for wrong in (["x"], ["x", "x"]):
        with pytest.raises(UsageError, match="Give a label of its own"):
            compare(places, wrong)


def test_what_a_run_leaves_and_what_is_no_result(tmp_path: Path) -> None:
    run = tmp_path / "run"
    put(run / "part.json", "m1", set=None)
    part = json.loads((run / "part.json").read_text())
    (run / "part.json").unlink()
    recipe = {"data": {"root": "/data/f8k"}, "evaluate": {"classification": "classes"}}
    (run / "results.json").write_text(json.dumps({"classification": part, "recipe": recipe}))
    (run / "notes.json").write_text("[1, 2]")
    (run / "broken.json").write_text("{")
    (run / "other.json").write_text('{"recipe": 3}')
    assert {row.set for row in compare([run]).rows} == {"classes"}
    for name in ("notes", "broken", "other", "absent"):
        with pytest.raises(DataError, match=name):
            compare([run / f"{name}.json"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no results"):
        compare([tmp_path / "empty"])
    with pytest.raises(UsageError, match="nothing to compare"):
        compare([])


def test_published_numbers_stand_beside(tmp_path: Path) -> None:
    put(tmp_path / "a" / "imagenet.json", "m1", set="imagenet", split="val", images=50_000)
    found = compare([tmp_path / "a"])
    first = found.table(published=True)
    assert first.columns[-1].name.startswith("published (other")
    assert first.cells()[0][-1] == (
        "73.4 SAIL-L, 54 SAIL CC3M, 67.72→67.84 KUEA B-16, 74.9→75.52 KUEA L-14"
    )
    assert first.note.endswith("Also published, and given in JSON and CSV: KUEA L-14-336.")
    plain = found.table()
    assert "KUEA" not in plain.note
    assert all("published" not in column.name for column in plain.columns)
    whole = json.loads(found.text("json"))["rows"][0]["published"]
    assert [each["value"] for each in whole] == [
        73.4, 54, 67.72, 67.84, 74.9, 75.52, 75.82, 76.3,
    ]  # fmt: skip


def test_retrieval_of_kuea_has_the_remark_that_others_measured_less(tmp_path: Path) -> None:
    retrieval(tmp_path / "coco.json", "m", 5.0, images=5_000)
    table = compare([tmp_path]).table(published=True)
    shown = [cells[-1] for cells in table.cells()]
    assert shown[0] == "48.6 SAIL-L, 32.9 SAIL CC3M, 34.51→35.98 KUEA L-14"
    assert shown[1] == ""  # of R@5 nothing is published
    assert "79.20 (I2T R@1) and 60.70 (T2I R@1)" in table.note
    assert "patches" not in table.note


def test_of_two_means_of_kuea_the_one_beside_imagenet_is_the_published(tmp_path: Path) -> None:
    for name in KUEA_SETS:
        score = 90.0 if name == "imagenet" else 30.0
        put(tmp_path / f"{name}.json", "m", set=name, top1=score, images=60_000,
            conditions={"model": "m", "data": name})  # fmt: skip
    rows = {row.set: row for row in compare([tmp_path]).rows}
    others, every = rows["mean of KUEA's 11 sets beside ImageNet"], rows["mean of KUEA's 12 sets"]
    assert (others.values, every.values) == ((30.0,), (35.0,))
    published = {each.source: each.value for each in others.published}
    assert (published["CLIP L-14"], published["KUEA L-14"]) == (65.26, 66.54)
    published = {each.source: each.value for each in every.published}
    # (74.90 + 11 · 65.26) / 12 and (75.52 + 11 · 66.54) / 12
    assert (published["CLIP L-14"], published["KUEA L-14"]) == (66.06, 67.29)


def test_papers_means_are_of_all_their_sets_or_not_there(tmp_path: Path) -> None:
    for model in ("a", "b"):
        for index, name in enumerate(AVERAGES[0].sets):
            put(tmp_path / model / f"{name}.json", model, set=name, score=float(index),
                images=50_000,
                conditions={"model": model, "data": name})  # fmt: skip
    (tmp_path / "b" / "dtd.json").unlink()
    [row] = [row for row in compare([tmp_path]).rows if row.set == AVERAGES[0].name]
    assert row.values == (4.5, None)
    assert [each.value for each in row.published] == [72.1]


def test_papers_means_are_of_results_with_the_sets_own_names_and_metric(tmp_path: Path) -> None:
    for model in ("folder", "two-splits"):
        for name in AVERAGES[0].sets:
            put(tmp_path / model / f"{name}.json", model, set=name, score=1.0,
                conditions={"model": model, "data": name})  # fmt: skip
    put(tmp_path / "folder" / "pets.json", "folder", set=None, score=9.0,
        options={"images": "pets"}, conditions={"model": "folder", "data": "other"})  # fmt: skip
    put(tmp_path / "two-splits" / "train.json", "two-splits", set="pets", split="train", score=9.0,
        conditions={"model": "two-splits", "data": "train"})  # fmt: skip
    assert not [row for row in compare([tmp_path]).rows if row.set == AVERAGES[0].name]


def test_a_size_that_is_the_default_is_the_same_said_or_not(tmp_path: Path) -> None:
    for name, options in (("one", {}), ("two", {"window": 448}), ("three", {"window": 224})):
        put(tmp_path / f"{name}.json", name, task="segmentation", miou=float(len(name)),
            options=options)  # fmt: skip

    def differs(*names: str) -> set[tuple[str, ...]]:
        return {row.differs for row in compare([tmp_path / f"{n}.json" for n in names]).rows}

    assert differs("one", "two") == {()}
    assert differs("one", "three") == {("window",)}


def test_text_forms(tmp_path: Path) -> None:
    put(tmp_path / "a" / "pets.json", "m1", top1=100 / 3)
    put(tmp_path / "b" / "pets.json", "m2")
    found = compare([tmp_path])
    lines = list(csv.DictReader(io.StringIO(found.text("csv", published=True))))
    assert lines[0]["a"] == "33.3333"
    assert set(lines[0]) == {
        "task", "set", "metric", "a", "b", "a low", "a high", "b low", "b high", "n", "published",
        "differs", "trained on", "short",
    }  # fmt: skip
    assert "| classification | pets | top-1 | 33.3 | 50.0 |" in found.text("markdown")
    whole = json.loads(found.text("json"))
    assert whole["models"] == ["a", "b"]
    assert whole["rows"][0]["values"] == {"a": 100 / 3, "b": 50.0}
    assert whole["rows"][0]["best"] == []
