"""A recipe in Python: nested as in a file, by dotted key as on the command line, or both."""

from pathlib import Path

import pytest

from lateen.errors import RecipeError
from lateen.experiment.recipe import Recipe


def test_dotted_keys_are_those_of_a_file(tmp_path: Path) -> None:
    nested = Recipe.build({"data": {"root": str(tmp_path)}, "train": {"lr": 0.01, "epochs": 3}})
    assert Recipe.build({"data.root": tmp_path, "train": {"lr": 0.01}, "train.epochs": 3}) == nested


def test_an_unknown_dotted_key_is_told_with_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"unknown recipe key 'train\.epoch'.*train\.epochs"):
        Recipe.build({"train.epoch": 3})
