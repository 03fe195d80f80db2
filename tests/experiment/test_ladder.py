import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from lateen.errors import DataError, LateenError, RecipeError
from lateen.experiment import ablate, against_the_paper, ladder_tables, run
from lateen.experiment import ladder as ablation
from lateen.experiment.rungs import Ladder

BASE: dict[str, Any] = {
    "vision": {"encoder": "toys:colour_encoder", "dtype": "float32"},
    "text": {"encoder": "toys:word_encoder"},
    "head": {"dim": 8, "dropout": 0.0},
    "train": {"batch": 6, "epochs": 4, "lr": 0.01, "validations": 2},
}
RUNGS: list[dict[str, Any]] = [
    {"name": "linear", "published": {"in1k": 33.2, "t2i": 11.1, "i2t": 13.5}},
    {"name": "glu", "set": {"head.name": "glu"}, "published": {"t2i": 16.1, "i2t": 22.5}},
    {"name": "second", "from": "linear", "set": {"data.captions": ["caption#1"]}},
    {"name": "both", "set": {"data.captions": ["caption#0", "caption#1"]}},
]


def ladder(root: Path, **changes: Any) -> dict[str, Any]:
    data = {"root": str(root), "train": "train.jsonl", "holdout": 0.25, "captions": ["caption#0"]}
    return {"base": {**BASE, "data": data}, "seeds": [0, 1], "rungs": RUNGS, **changes}


def rungs(*rows: dict[str, Any]) -> dict[str, Any]:
    return {"base": {}, "rungs": list(rows)}


WRONG: list[tuple[dict[str, Any], str]] = [
    (rungs(), r"'rungs'.*at least 1"),
    ({"base": {}}, "the ladder has no 'rungs'"),
    ({"rungs": RUNGS}, "the ladder has no 'base'"),
    ({**rungs({"name": "a"}), "seed": [1]}, r"unknown key 'seed'.*Did you mean 'seeds'"),
    (rungs({"name": "a", "form": "b"}), r"unknown key 'rung 1 form'.*Did you mean 'from'"),
    (rungs({"name": "a", "published": {"t2": 1}}), r"'rung 1 published t2'.*Did you mean 't2i'"),
    (rungs({"name": "a"}, {"name": "a"}), "two rungs are named 'a'"),
    (rungs({"name": "a", "from": "a"}), r"builds on 'a', which is no rung above it\. The first"),
    (rungs({"name": "a"}, {"name": "b", "from": "c"}, {"name": "c", "from": "b"}),
     r"'b' builds on 'c', which is no rung above it\. Choose one of: a"),
    (rungs({"name": "a", "set": {"train.lrr": 1}}), r"'a' cannot set 'train\.lrr'.*'train\.lr'"),
    (rungs({"name": "a", "set": {"train.lr": -1}}), r"rung 'a': recipe key 'train\.lr' cannot be"),
    (rungs({"name": "a", "set": {"vision.encoder": "x"}}), "cannot set 'vision.encoder'.*in base"),
    (rungs({"name": "a", "set": {"train.seed": 1}}), "cannot set 'train.seed'.*seeds have"),
    ({"base": {"trian": {"lr": 1}}, "rungs": RUNGS}, r"unknown recipe key 'trian\.lr'"),
    *[({**rungs({"name": "a"}), "seeds": seeds}, "'seeds")
      for seeds in ([], [0, 0], [-1], ["x"], [1.5], 3)],
]  # fmt: skip


@pytest.mark.parametrize(("values", "message"), WRONG, ids=[message for _, message in WRONG])
def test_wrong_ladders_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Ladder.build(values)


def test_files_that_are_no_ladder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no ladder"):
        Ladder.load(tmp_path / "absent.yaml")
    for text, message in (("a: [", "not valid YAML"), ("- 1", "is not a ladder")):
        (tmp_path / "l.yaml").write_text(text)
        with pytest.raises(RecipeError, match=message):
            Ladder.load(tmp_path / "l.yaml")


def test_rungs_build_on_the_one_before_or_the_one_named() -> None:
    overrides = {"train.lr": 0.5, "train.epochs": 7}
    recipes = Ladder.build(
        {
            "base": {"preset": "sail", "train": {"lr": 0.1}},
            "rungs": [
                {"name": "a", "set": {"head.name": "linear", "train.lr": "1e-3"}},
                {"name": "b", "set": {"train.loss": "infonce"}},
                {"name": "c", "from": "a", "set": {"data.captions": ["raw#1"]}},
            ],
        },
        overrides,
    ).recipes()
    assert [r.head.name for r in recipes.values()] == ["linear"] * 3
    assert [r.train.loss for r in recipes.values()] == ["sigmoid", "infonce", "sigmoid"]
    assert {(r.train.lr, r.train.epochs, r.train.optimizer) for r in recipes.values()} == {
        (1e-3, 7, "lion")
    }
    assert recipes["c"].data.captions == ("raw#1",)
    assert recipes["b"].data.captions == ()


def test_the_shipped_ladder_is_valid() -> None:
    path = Path(__file__).parents[2] / "recipes" / "ablation-flickr8k.yaml"
    checked = Ladder.load(path, {"train.epochs": "1", "data.root": "there"}, [5])
    recipes = list(checked.recipes().values())
    assert checked.seeds == (5,)
    assert {(r.train.epochs, str(r.data.root)) for r in recipes} == {(1, "there")}
    assert {(r.head.name, r.head.width) for r in recipes} == {
        ("linear", None), ("mlp", 4), ("glu", 4), ("glu", 8)
    }  # fmt: skip
    assert {r.train.optimizer for r in recipes} == {"lion", "adamw"}


def test_every_rung_is_measured_with_every_seed(album: Path) -> None:
    results = ablate(ladder(album), album / "out")
    assert json.loads((album / "out" / "ladder.json").read_text()) == results
    assert [rung["from"] for rung in results["rungs"]] == [None, "linear", "linear", "second"]
    assert [rung["captions"] for rung in results["rungs"]] == [
        ["caption#0"], ["caption#0"], ["caption#1"], ["caption#0", "caption#1"]
    ]  # fmt: skip
    for rung in results["rungs"]:
        assert [run["seed"] for run in rung["runs"]] == [0, 1]
        for one in rung["runs"]:
            assert (one["images"], one["captions"]) == (6, 12)  # of all captions, whatever it saw
            assert {"model", "data", "versions"} <= set(one["conditions"])
    assert len({one["metrics"] for rung in results["rungs"] for one in rung["runs"]}) == 8
    stores = [path.name for path in (album / "out" / "stores").iterdir()]
    assert len(stores) == 2  # the images, and the captions once
    assert not list((album / "out" / "train").rglob("*.safetensors"))
    with (album / "out" / "ladder.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["rung"], row["seed"]) for row in rows[:3]] == [
        ("linear", "0"), ("linear", "1"), ("glu", "0")
    ]  # fmt: skip
    first = results["rungs"][0]["runs"][0]
    assert float(rows[0]["T2I R@5"]) == pytest.approx(first["text_to_image"]["R@5"], abs=0.01)
    assert (album / "out" / "ladder.png").read_bytes().startswith(b"\x89PNG")
    assert "linear" in (album / "out" / "report.html").read_text()


def test_a_rung_is_what_a_run_of_its_recipe_is(album: Path) -> None:
    values = ladder(album, seeds=[0])
    both = ablate(values, album / "out")["rungs"][3]["runs"][0]
    data = {**values["base"]["data"], "captions": ["caption#0", "caption#1"]}
    recipe = {**values["base"], "preset": "small", "data": data}  # as a ladder has it by default
    alone = run(recipe, album / "run").results["retrieval"]
    assert {key: both[key] for key in alone if key in both} == {
        key: value for key, value in alone.items() if key in both
    }
    assert both["conditions"] == alone["conditions"]


def test_what_is_done_is_skipped_and_a_stopped_ladder_goes_on(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, left = ablation.train, [3]

    def stopping(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return plain(*arguments, **options)

    monkeypatch.setattr(ablation, "train", stopping)
    with pytest.raises(KeyboardInterrupt):
        ablate(ladder(album), album / "out")
    left[0] = 5
    results = ablate(ladder(album), album / "out")
    assert left == [0]
    assert ablate(ladder(album), album / "out") == results
    rescaled = ladder(album, rungs=[*RUNGS, {"name": "mean", "set": {"train.positives": "mean"}}])
    left[0] = 2
    assert ablate(rescaled, album / "out")["rungs"][:4] == results["rungs"]


def test_the_test_split_is_judged_where_there_is_one(album: Path) -> None:
    lines = (album / "train.jsonl").read_text().splitlines(keepends=True)
    for name, part in (("train", lines[:12]), ("val", lines[12:18]), ("test", lines[18:])):
        (album / f"{name}.jsonl").write_text("".join(part))
    overrides = {"data.validation": "val.jsonl", "data.test": "test.jsonl", "train.epochs": 1}
    results = ablate(ladder(album, rungs=RUNGS[:1]), album / "out", overrides=overrides, seeds=[3])
    assert (results["split"], results["chose_step"], results["seeds"]) == ("test", False, [3])


@pytest.mark.parametrize(
    ("captions", "message"),
    [("caption#9", r"caption#9 needs 10 captions of every image, and '\d+\.png' has 2"),
     ("captoin#1", "no column 'captoin'.*Did you mean 'caption'")],
)  # fmt: skip
def test_captions_that_are_not_there_stop_it_before_any_training(
    captions: str, message: str, album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "train", lambda *a, **k: pytest.fail("it trained"))
    wrong = ladder(album, rungs=[*RUNGS, {"name": "x", "set": {"data.captions": [captions]}}])
    with pytest.raises(DataError, match=message):
        ablate(wrong, album / "out")


def test_a_ladder_in_use_is_refused(album: Path) -> None:
    from lateen.files import folder_lock

    with folder_lock(album / "out"), pytest.raises(LateenError, match="another lateen process"):
        ablate(ladder(album), album / "out")


def measured(name: str, base: str | None, r1: list[float], published: dict[str, float]) -> Any:
    def recall(value: float) -> dict[str, float]:
        return {"R@1": value, "R@5": value, "R@10": 2 * value}

    runs = [{"text_to_image": recall(v), "image_to_text": recall(v + 10)} for v in r1]
    return {"name": name, "from": base, "published": published, "runs": runs}


def test_steps_are_held_beside_the_published_ones() -> None:
    results = {
        "split": "test", "chose_step": False, "images": 9, "seeds": [0, 1], "paper": "X",
        "rungs": [
            measured("a", None, [10, 12], {"t2i": 20, "i2t": 30}),
            measured("same", "a", [20, 22], {"t2i": 22, "i2t": 33}),
            measured("other", "same", [18, 19], {"t2i": 23, "i2t": 34}),
            measured("lost", "other", [18, 22], {"t2i": 25, "i2t": 36}),
            measured("down", "a", [1, 2], {"t2i": 10, "i2t": 32}),
            measured("new", "down", [30, 30], {}),
        ],
    }  # fmt: skip
    numbers, steps = ladder_tables(results)
    assert numbers.rows[0][1:] == [
        "11.0 ± 1.4", "22.0 ± 2.8", "21.0 ± 1.4", "42.0 ± 2.8", "32.0 ± 2.8", "20.0 / 30.0"
    ]  # fmt: skip
    assert numbers.rows[5][6] == "–"
    assert [row[0] for row in steps.rows] == ["same", "other", "lost", "down", "new"]
    assert steps.rows[1][1:6] == ["same", "−2.5", "+1.0", "−2.5", "+1.0"]
    assert steps.rows[4][1:] == ["down", "+28.5", "–", "+28.5", "–", ""]
    assert [row[6] for row in steps.rows[:4]] == [
        "as published", "reversed", "unclear", "as published"
    ]  # fmt: skip
    sentences = against_the_paper(results)
    assert [re.split(": |[.]", sentence)[:2] for sentence in sentences] == [
        ["other", "reversed"], ["lost", "unclear"]
    ]  # fmt: skip
    assert "changes by −2.5 here and by +1.0 in the paper" in sentences[0]


def test_one_seed_proves_nothing() -> None:
    results = {
        "split": "test", "chose_step": True, "images": 9, "seeds": [4], "paper": "",
        "rungs": [measured("a", None, [10], {"t2i": 20, "i2t": 30}),
                  measured("b", "a", [2], {"t2i": 22, "i2t": 33})],
    }  # fmt: skip
    numbers, steps = ladder_tables(results)
    assert numbers.rows[0][1] == "10.0"
    assert steps.rows[0][6] == "one seed"
    assert against_the_paper(results) == ["One seed alone cannot say where the paper is right."]
