import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

import lateen
from lateen.errors import RecipeError
from lateen.evaluation.features import model_key
from lateen.experiment.recipe import Recipe
from lateen.features import Pairs, pair

TOYS: dict[str, Any] = {
    "vision": {"encoder": "toys:colour_encoder", "dtype": "float32"},
    "text": {"encoder": "toys:word_encoder"},
    "head": {"dim": 4},
}
QUICK: dict[str, Any] = {
    "batch": 6, "epochs": 2, "lr": 0.01, "checkpoints": 1, "validations": 1
}  # fmt: skip


def data(root: Path) -> dict[str, Any]:
    return {"root": str(root), "train": "train.jsonl", "holdout": 0.25}


def trainings(run: Path) -> set[str]:
    return {path.name for path in (run / "train").iterdir()}


def pairs_of(run: Path) -> Pairs:
    vision, text = (next((run / "stores").glob(f"train-{name}*")) for name in ("vision", "text"))
    return pair(vision, text)


def test_train_auto_in_a_file_is_preset_auto_and_options_stand_above_it(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text("train: auto\n")
    assert Recipe.load(file).preset == "auto"
    recipe = Recipe.load(file, {"train.lr": "1e-3", "head.dropout": "0.5"})
    assert (recipe.preset, recipe.train.lr, recipe.head.dropout) == ("auto", 1e-3, 0.5)
    assert Recipe.load(file, {"preset": "sail"}).head.name == "glu"


def test_auto_is_what_a_recipe_is_that_names_none_and_has_linear_heads_on_features() -> None:
    assert Recipe.build({}).preset == "auto"
    assert Recipe.build({"head": {"name": "glu"}}).preset == "small"
    assert Recipe.build({"text": {"train": True}}).preset == "small"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train": "auto", "preset": "sail"}, "train: auto and preset 'sail' are two choices"),
        ({"train": "auto", "preset": "small"}, "train: auto and preset 'small' are two choices"),
        ({"preset": "auto", "head": {"name": "glu"}}, "no values for heads that are not linear"),
        ({"train": "auto", "head": {"name": "glu"}}, "train: auto.*, or use head.name linear"),
        ({"preset": "auto", "text": {"train": True}}, "no values for a text encoder that is"),
        ({"train": "auto", "text": {"train": True}}, "or leave text.train out"),
        ({"train": "best"}, "recipe key 'train' cannot be 'best'"),
        ({"preset": "automatic"}, "unknown preset 'automatic'.*auto"),
        ({"train": {"cca_ridge": [0, 1]}}, "'train.cca_ridge"),
        ({"data": {"pairs": 1}}, "'data.pairs' cannot be 1"),
    ],
)
def test_what_auto_cannot_be_with_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.build(values)


def test_a_run_says_and_saves_what_was_chosen_and_is_found_done_by_it(
    album: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = {**TOYS, "data": data(album), "train": {**QUICK, "cca": 0.3}}
    with caplog.at_level(logging.INFO, "lateen"):
        first = lateen.run(recipe, album / "run")
    said = [line for line in caplog.messages if line.startswith("preset auto, for 18 images")]
    assert len(said) == 1
    assert "train.cca_ridge" in said[0] and "train.cca 0.3" not in said[0]
    saved = yaml.safe_load((album / "run" / "recipe.yaml").read_text())
    assert saved["preset"] == "auto"
    assert (first.model.config.training or {})["closed form"].startswith("share 0.3, ridges ")
    assert saved["train"]["cca"] == 0.3 and len(saved["train"]["cca_ridge"]) == 2
    made = trainings(album / "run")
    again = lateen.run(saved, album / "run")
    assert trainings(album / "run") == made
    assert again.results["retrieval"] == first.results["retrieval"]
    assert "would be" not in caplog.text
    fewer = {**saved, "data": {**saved["data"], "pairs": 6}}
    with caplog.at_level(logging.INFO, "lateen"):
        lateen.run(fewer, album / "fewer")
    [line] = [line for line in caplog.messages if line.startswith("preset auto, for 6 images")]
    assert "all that it chooses is given, and for these pairs would be train.cca 2.0" in line
    other = {**recipe, "train": {**QUICK, "cca": 0.3, "cca_ridge": [0.5, 0.5]}}
    lateen.run(other, album / "run")
    assert trainings(album / "run") > made


def test_what_was_begun_as_small_goes_on_where_no_preset_is_named(album: Path) -> None:
    recipe = {**TOYS, "data": data(album), "train": QUICK}
    lateen.run({**recipe, "preset": "small"}, album / "run")
    made = trainings(album / "run")
    assert lateen.run(recipe, album / "run").results["recipe"]["preset"] == "small"
    assert trainings(album / "run") == made
    lateen.run({**recipe, "preset": "auto"}, album / "run")
    assert len(trainings(album / "run")) == 2


def test_train_takes_auto_and_goes_on_with_what_was_begun_as_small(
    album: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lateen.run({**TOYS, "data": data(album), "train": QUICK}, album / "run")
    pairs, settings = pairs_of(album / "run"), {"dim": 4, **QUICK}
    small = lateen.train(pairs, preset="small", holdout=0.25, out=album / "a", **settings)
    again = lateen.train(pairs, holdout=0.25, out=album / "a", **settings)
    assert model_key(again) == model_key(small)
    with caplog.at_level(logging.INFO, "lateen"):
        new = lateen.train(pairs, holdout=0.25, out=album / "b", **settings)
    assert any(line.startswith("preset auto, for 18 images") for line in caplog.messages)
    assert model_key(new) != model_key(small)
    named = lateen.train(pairs, preset="auto", holdout=0.25, **settings)
    assert model_key(named) == model_key(new)


def test_what_auto_is_for_very_many_pairs_is_saved_as_what_it_is(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lateen.run({**TOYS, "data": data(album), "train": QUICK}, album / "run")
    monkeypatch.setattr("lateen.training.auto.MANY", 10)
    plan = Recipe.build({"head": {"dim": 4}}).suited_to(pairs_of(album / "run"))
    assert (plan.preset, plan.head.name, plan.head.dim) == ("sail", "glu", 4)
    assert Recipe.build(plan.model_dump(mode="json")) == plan
