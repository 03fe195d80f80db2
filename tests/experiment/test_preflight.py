"""Everything is opened before anything is encoded, and recipes go by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import write_csv, write_images, write_jsonl

import lateen
from lateen.assessment.recipe import AssessmentRecipe
from lateen.config import find_recipe, shipped_recipes
from lateen.errors import DataError, EncoderError, Faults, LateenError, RecipeError, UsageError
from lateen.experiment import Recipe
from lateen.experiment.preflight import check_run
from lateen.experiment.rungs import Ladder, check_ladder
from lateen.mllm import MultimodalRecipe
from lateen.tuning.config import TuneRecipe

TOYS = {"vision": {"encoder": "toys:colour_encoder"}, "text": {"encoder": "toys:word_encoder"}}


def recipe(album: Path, **data: Any) -> dict[str, Any]:
    return {**TOYS, "data": {"root": str(album), "train": "train.jsonl", **data}}


@pytest.mark.parametrize("side", ["vision", "text"])
def test_all_that_is_wrong_is_said_at_once_and_nothing_is_encoded(side: str, album: Path) -> None:
    values = recipe(album, validation="gone.jsonl", test="lost.jsonl")
    values[side] = {"encoder": "./absent"}
    values["evaluate"] = {"classification": "images"}
    with pytest.raises(DataError) as raised:
        lateen.run(values, album / "run")
    message = str(raised.value)
    assert message.startswith("4 things are wrong: (1) there is no ")
    for part in ("gone.jsonl", "lost.jsonl", "images", "./absent"):
        assert part in message
    assert not (album / "run").exists()


def test_what_is_opened_is_what_is_encoded(album: Path) -> None:
    checked = check_run(recipe(album, holdout=0.25), album / "run")
    assert checked.plan.data.root == album.resolve()
    assert set(checked.datasets) == {"train"}
    lateen.run(checked, album / "run")
    assert not checked.datasets  # not held while heads were trained
    assert (album / "run" / "results.json").is_file()


def test_a_run_into_a_class_folder_is_refused(album: Path) -> None:
    write_images(album / "zoo", ["cat/1.jpg", "dog/1.jpg"])
    values = {**recipe(album), "evaluate": {"classification": "zoo"}}
    with pytest.raises(UsageError, match="would be taken for a class"):
        check_run(values, album / "zoo" / "run")
    check_run(values, album / "run")


def test_positions_that_images_do_not_have(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    (tmp_path / "d.jpg").write_bytes(b"damaged")
    counts = {"a.jpg": 2, "b.jpg": 2, "c.jpg": 1, "d.jpg": 1}
    rows = [{"image": name, "caption": ["x", "y"][:count]} for name, count in counts.items()]
    write_jsonl(tmp_path / "train.jsonl", rows)
    held_out = recipe(tmp_path, captions=["caption#1"])
    check_run(held_out, tmp_path / "run")  # c may be held out
    with pytest.raises(DataError, match=r"'c\.jpg' has 1"):
        check_run(
            recipe(tmp_path, captions=["caption#1"], validation="train.jsonl"), tmp_path / "r"
        )
    rows[2]["caption"] = ["x", "y"]
    write_jsonl(tmp_path / "train.jsonl", rows)
    # d cannot be decoded, and so leaves.
    check_run(recipe(tmp_path, captions=["caption#1"], validation="train.jsonl"), tmp_path / "r")


def test_an_encoder_without_weights(album: Path, vit_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "config.json").write_bytes((vit_folder / "config.json").read_bytes())
    values = recipe(album)
    values["vision"] = {"encoder": str(tmp_path / "vit"), "pooling": "cls"}
    with pytest.raises(EncoderError, match="is there without its weights"):
        check_run(values, album / "run")
    values["vision"]["untrained"] = True
    check_run(values, album / "run")


def test_a_ladder_and_an_assessment_look_for_all_they_need(album: Path) -> None:
    base = recipe(album, test="gone.jsonl")
    ladder = Ladder.build({"base": base, "rungs": [{"name": "a"}]})
    with pytest.raises(DataError, match=r"there is no .*gone\.jsonl"):
        check_ladder(ladder, album / "out")
    values = {
        "data": recipe(album)["data"], "text": [TOYS["text"], {"encoder": "./absent"}],
        "vision": [TOYS["vision"]],
    }  # fmt: skip
    with pytest.raises(EncoderError, match=r"there is no folder \./absent"):
        lateen.assess(AssessmentRecipe.build(values), album / "out")
    assert not list((album / "out").glob("stores/*"))


def test_one_fault_is_itself_and_several_are_of_the_first_ones_kind() -> None:
    faults, first = Faults(), DataError("a is wrong", "Mend a.")
    faults.raise_all()
    for error in (first, UsageError("b is wrong"), DataError("a is wrong", "Mend a.")):
        with faults.note():
            raise error
    with pytest.raises(LateenError) as raised:
        faults.raise_all()
    assert type(raised.value) is DataError
    assert str(raised.value) == "2 things are wrong: (1) a is wrong. Mend a. (2) b is wrong"
    alone = Faults()
    with alone.note():
        raise first
    with pytest.raises(DataError) as raised:
        alone.raise_all()
    assert raised.value is first


def test_every_recipe_that_comes_with_lateen_fits_and_goes_by_name() -> None:
    loads = {
        "recipe": Recipe.load, "ladder": Ladder.load, "assessment": AssessmentRecipe.load,
        "tuning": TuneRecipe.load, "multimodal": MultimodalRecipe.load,
    }  # fmt: skip
    for name, shipped in shipped_recipes().items():
        assert loads[shipped.kind](Path(name))
        assert len(shipped.summary) > 20
    clone = Path(__file__).parents[2] / "recipes"
    assert {path.stem for path in clone.glob("*.yaml")} == set(shipped_recipes())


def test_what_is_in_the_working_directory_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flickr8k").mkdir()  # data of that name
    assert find_recipe(Path("flickr8k")) == shipped_recipes()["flickr8k"].path
    (tmp_path / "flickr8k.yaml").write_text("train: {lr: 0.5}\n")
    assert Recipe.load(Path("flickr8k")).train.lr == 0.5
    (tmp_path / "flickr8k" / "lateen.yaml").write_text("train: {lr: 0.25}\n")
    assert Recipe.load(Path("flickr8k")).train.lr == 0.25
    with pytest.raises(RecipeError, match=r"Did you mean 'flickr8k'\?.*lit-flickr8k"):
        Recipe.load(Path("flikr8k"))
    with pytest.raises(RecipeError, match=r"no recipe \.\./x/flickr8k"):
        Recipe.load(Path("../x/flickr8k"))
    (tmp_path / "photos").mkdir()
    with pytest.raises(RecipeError, match="lateen init photos"):
        Recipe.load(Path("photos"))


def test_the_folder_of_a_lateen_yaml_is_the_root_unless_said_otherwise(tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", [["image", "caption"]])
    (tmp_path / "lateen.yaml").write_text("preset: small\n")
    (tmp_path / "other.yaml").write_text("preset: small\n")
    assert Recipe.load(tmp_path).data.root == tmp_path
    assert Recipe.load(tmp_path / "lateen.yaml").data.root == tmp_path
    assert Recipe.load(tmp_path, {"data.root": "else"}).data.root == Path("else")
    assert Recipe.load(tmp_path / "other.yaml").data.root == Path()
    (tmp_path / "lateen.yaml").write_text("data: {root: there}\n")
    assert Recipe.load(tmp_path).data.root == Path("there")
