import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

import lateen
from lateen.errors import DataError, RecipeError
from lateen.experiment import ablate, ladder_figure, ladder_sentences, ladder_tables
from lateen.experiment.curve_report import chosen_by_pairs, pairs_for
from lateen.experiment.rungs import Ladder
from lateen.features import pair

BASE: dict[str, Any] = {
    "vision": {"encoder": "toys:colour_encoder", "dtype": "float32"},
    "text": {"encoder": "toys:word_encoder"},
    "head": {"dim": 8, "dropout": 0.0},
    "train": {"batch": 6, "epochs": 2, "lr": 0.01, "validations": 1, "checkpoints": 1},
}


def curve(root: Path, **changes: Any) -> dict[str, Any]:
    data = {"root": str(root), "train": "train.jsonl", "holdout": 0.25}
    rungs = [{"name": "small"}, {"name": "auto", "set": {"train": "auto"}}]
    return {
        "base": {**BASE, "data": data}, "seeds": [0, 1], "pairs": [4, 8, "all"], "rungs": rungs,
        "curves": [{"name": "SAIL", "t2i": {1000: 6.4, 10000: 18.9}}], **changes,
    }  # fmt: skip


def test_every_rung_is_trained_on_every_number_of_pairs(album: Path) -> None:
    results = ablate(curve(album), album / "out")
    assert [(rung["name"], rung["pairs"]) for rung in results["rungs"]] == [
        (name, count) for name in ("small", "auto") for count in (4, 8, 18)
    ]
    judged = {run["conditions"]["data"] for rung in results["rungs"] for run in rung["runs"]}
    assert len(judged) == 1  # the same images for every number
    trained = {run["training_data"] for rung in results["rungs"][:2] for run in rung["runs"]}
    assert len(trained) == 4  # each seed draws its own
    whole = {run["training_data"] for run in results["rungs"][2]["runs"]}
    assert len(whole) == 1
    few, many = (rung["runs"][0]["train"]["cca_ridge"] for rung in results["rungs"][3:6:2])
    assert few[0] > many[0]
    assert "cca_ridge" not in results["rungs"][0]["train"]
    assert results["rungs"][5]["train"]["cca_ridge"] == many  # both seeds have all
    with (album / "out" / "ladder.csv").open() as file:
        assert [row["pairs"] for row in csv.DictReader(file)][:4] == ["4", "4", "8", "8"]
    assert json.loads((album / "out" / "ladder.json").read_text()) == results


def test_a_curve_shows_its_numbers_doublings_and_published_points(album: Path) -> None:
    results = ablate(curve(album), album / "out")
    numbers, doublings = ladder_tables(results)
    assert [row[:2] for row in numbers.rows[:3]] == [["small", 4], ["small", 8], ["small", 18]]
    assert [row[0] for row in doublings.rows] == ["4 → 8", "8 → 18"]
    titles = [axes.get_title(loc="left") for axes in ladder_figure(results).axes]
    assert titles == [
        "both directions", "text → image", "image → text", "text → image, published, on other data"
    ]  # fmt: skip
    assert ladder_sentences(results)[0].startswith("small: from 4 to 18 pairs, each doubling gives")
    page = (album / "out" / "report.html").read_text()
    assert "Data curve" in page and "SAIL" in page


def test_a_number_of_the_curve_is_what_a_run_on_so_many_pairs_is(album: Path) -> None:
    values = curve(album, seeds=[1], pairs=[8], rungs=[{"name": "small"}])
    one = ablate(values, album / "out")["rungs"][0]["runs"][0]
    data = {**values["base"]["data"], "pairs": 8}
    train = {**BASE["train"], "seed": 1}
    alone = lateen.run({**BASE, "preset": "small", "data": data, "train": train}, album / "run")
    retrieval = alone.results["retrieval"]
    assert one["text_to_image"] == retrieval["text_to_image"]
    assert one["conditions"] == retrieval["conditions"]
    assert (alone.model.config.training or {})["pairs"] == 8


def test_a_smaller_draw_is_part_of_a_larger_one_and_a_seed_draws_its_own(album: Path) -> None:
    run = {**BASE, "data": {"root": str(album), "train": "train.jsonl", "holdout": 0.25}}
    lateen.run(run, album / "run")
    stores = {name: next((album / "run" / "stores").glob(f"train-{name}*"))
              for name in ("vision", "text")}  # fmt: skip
    pairs = pair(stores["vision"], stores["text"])
    few, many, other = pairs.draw(4), pairs.draw(9), pairs.draw(9, seed=1)
    assert len(few) == 4 and set(few.ids) < set(many.ids)
    assert set(many.ids) != set(other.ids)
    assert list(many.ids) == [i for i in pairs.ids if i in set(many.ids)]  # in their order
    assert pairs.draw(len(pairs)).key == pairs.key


def test_more_pairs_than_there_are_is_said_before_training(album: Path) -> None:
    with pytest.raises(DataError, match=r"trains on 500 pairs, and there are 18"):
        ablate(curve(album, pairs=[4, 500]), album / "out")
    assert not (album / "out" / "train").exists()
    data = {"root": str(album), "train": "train.jsonl", "holdout": 0.25, "pairs": 19}
    with pytest.raises(DataError, match=r"data.pairs is 19, and there are 18"):
        lateen.run({**BASE, "data": data}, album / "run")


def test_settings_that_differ_by_draw_are_with_each_run(album: Path) -> None:
    lines = (album / "train.jsonl").read_text().splitlines()
    for index in range(0, len(lines), 2):  # every other image has one caption more
        row = json.loads(lines[index])
        captions = [row["caption"]] if isinstance(row["caption"], str) else row["caption"]
        lines[index] = json.dumps({**row, "caption": [*captions, f"{captions[0]} again"]})
    (album / "train.jsonl").write_text("\n".join(lines))
    results = ablate(curve(album, seeds=[0, 1, 2], pairs=[4]), album / "out")
    small, auto = results["rungs"]
    ridges = {tuple(run["train"]["cca_ridge"]) for run in auto["runs"]}
    assert len(ridges) > 1
    assert "cca_ridge" not in auto["train"]
    assert auto["train"]["epochs"] == small["train"]["epochs"] == 2
    [told] = chosen_by_pairs(results).values()
    assert all(f"{image} / {text}" in told for image, text in ridges)


def test_a_draw_that_serves_several_seeds_is_said(album: Path) -> None:
    values = curve(album, pairs=[4])
    values["base"]["data"]["pairs_seed"] = 7
    results = ablate(values, album / "out")
    assert len({run["training_data"] for run in results["rungs"][0]["runs"]}) == 1
    [numbers, *_] = ladder_tables(results)
    assert "one draw for all (data.pairs_seed 7)" in (numbers.note or "")
    results["base"]["data"]["pairs_seed"] = None
    assert "each seed draws its own" in (ladder_tables(results)[0].note or "")


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("vision", {"layer": "best"}, "chosen once, by more pairs than the first of a curve"),
        ("text", {"fuse": "auto"}, "chosen once, by more pairs than the first of a curve"),
        ("data", {"pairs": 12}, "data.pairs is 12 in the base of a ladder that has pairs itself"),
    ],
)
def test_a_curve_in_which_more_than_the_number_of_pairs_differs_is_refused(
    album: Path, section: str, values: dict[str, Any], message: str
) -> None:
    ladder = curve(album)
    ladder["base"][section] = {**ladder["base"][section], **values}
    with pytest.raises(RecipeError, match=message):
        ablate(ladder, album / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": [4, 4]}, "the same number of pairs twice"),
        ({"pairs": [1]}, "'pairs 1"),
        ({"pairs": ["most"]}, "'pairs 1"),
        ({"curves": [{"name": "a", "t2": {1: 2}}]}, "Did you mean 't2i'"),
        ({"rungs": [{"name": "a", "set": {"train": "best"}}]}, "cannot set 'train'"),
    ],
)
def test_wrong_curves_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        Ladder.build(curve(tmp_path, **changes))


def test_numbers_of_pairs_are_read_between_points_by_their_logarithm() -> None:
    curve = {100: 10.0, 400: 20.0, 1600: 40.0}
    assert pairs_for(15.0, curve) == pytest.approx(200)
    assert pairs_for(40.0, curve) == pytest.approx(1600)
    assert pairs_for(9.0, curve) == 0
    assert math.isinf(pairs_for(41.0, curve) or 0)
    assert pairs_for(15.0, {100: 10.0}) is None


def test_the_shipped_curve_is_valid() -> None:
    checked = Ladder.load(Path("curve-flickr8k"), {"data.root": "there"}, [5])
    recipes = checked.recipes()
    assert checked.pairs == (250, 500, 1000, 2000, 4000, "all")
    assert [recipe.preset for recipe in recipes.values()] == ["small", "auto"]
    assert recipes["small"].head == recipes["auto"].head
