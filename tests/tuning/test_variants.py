"""What the words of a ladder stand for, and which of them are refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from ladder_toys import plan

from lateen.errors import RecipeError, UsageError
from lateen.tuning.variants import Variant, read_variants


def read(text: str, **values: Any) -> list[Variant]:
    variants, _ = read_variants(text, plan(**values))
    return variants


def test_a_variant_is_a_method_a_share_or_settings():
    variants = read("kernel, feature ,25%, 12.5 %,tune.weight=3,"
                    "tune.kernel=gaussian + tune.learn_kernel=false, feature+50%")  # fmt: skip
    assert [variant.name for variant in variants] == [
        "kernel", "feature", "25%", "12.5%", "weight=3", "kernel=gaussian + learn_kernel=false",
        "feature + 50%",
    ]  # fmt: skip
    assert [variant.settings for variant in variants] == [
        {"tune.method": "kernel"}, {"tune.method": "feature"}, {"tune.fraction": 0.25},
        {"tune.fraction": 0.125}, {"tune.weight": 3.0},
        {"tune.kernel": "gaussian", "tune.learn_kernel": False},
        {"tune.method": "feature", "tune.fraction": 0.5},
    ]  # fmt: skip
    assert variants[5].plan.tune.kernel == "gaussian"
    assert variants[5].plan.tune.learn_kernel is False
    assert variants[5].plan.eval == plan().eval


def test_what_is_given_to_all_is_below_every_variant():
    variants = read("kernel, tune.weight=3", preset="b16", tune={"lr": 1e-3}, precision="float32")
    assert [variant.plan.tune.lr for variant in variants] == [1e-3, 1e-3]
    assert [variant.plan.tune.weight for variant in variants] == [0.5, 3.0]
    assert [variant.plan.tune.precision for variant in variants] == ["float32", "float32"]


def test_commas_in_brackets_and_a_plus_in_a_number_part_nothing():
    lists, number = read("tune.betas=[0.8,0.9], tune.weight=1e+3")
    assert lists.plan.tune.betas == (0.8, 0.9)
    assert number.plan.tune.weight == 1000


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, ["kernel", "feature", "projection", "25%", "50%"]),
        # Of half of the images, all of the images is another one.
        ({"fraction": 0.5}, ["kernel", "feature", "projection", "25%", "100%"]),
        # Of another method, the shares are still KUEA's.
        ({"method": "feature"}, ["kernel", "feature", "projection", "25%", "50%"]),
    ],
)
def test_the_baselines_are_those_of_the_paper_each_once(values: dict[str, Any], names: list[str]):
    variants = read("baselines", tune=values)
    assert [variant.name for variant in variants] == names
    assert [variant.plan.tune.method for variant in variants[3:]] == ["kernel"] * 2


def test_baselines_stand_beside_others():
    assert [variant.name for variant in read("baselines, tune.weight=3")][-2:] == [
        "50%",
        "weight=3",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" , ", "the ladder has no variant"),
        ("kernl", "a variant cannot be 'kernl'. Did you mean 'kernel'?"),
        ("kernel, kernel", "the variant 'kernel' is there twice"),
        ("kernel, 100%", "the variant '100%' is the same tuning as 'kernel'"),
        ("tune.weight=3, tune.weight=3.0", "is the same tuning as 'weight=3'"),
        ("baselines, 25%", "the variant '25%' is there twice"),
        ("eval.k=5", "a variant cannot set eval.k: what is not of tune is the same for all"),
        ("stop.retrieval=1", "a variant cannot set stop.retrieval"),
        ("tune.seed=1", r"a variant cannot set tune.seed. Repeat every variant with --seeds"),
        ("tune.holdout=0.1", "a variant cannot set tune.holdout"),
        ("25%+tune.fraction=0.5", "sets tune.fraction twice"),
        ("projection+tune.weight=3", "tune.weight changes nothing of the variant"),
    ],
)
def test_what_cannot_be_a_variant_is_said(text: str, message: str):
    with pytest.raises(UsageError, match=message):
        read(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weight=3", "unknown recipe key 'weight'. Did you mean 'tune.weight'?"),
        ("tune.wieght=3", "Did you mean 'tune.weight'?"),
        ("tune.weight=-3", "recipe key 'tune.weight' cannot be -3"),
        ("150%", "recipe key 'tune.fraction' cannot be 1.5"),
        ("0%", "recipe key 'tune.fraction' cannot be 0"),
        ("tune.kernel=cubic", "recipe key 'tune.kernel' cannot be 'cubic'"),
    ],
)
def test_keys_and_values_are_those_of_the_recipe(text: str, message: str):
    with pytest.raises(RecipeError, match=message):
        read(text)


def test_all_faults_are_said_at_once():
    with pytest.raises(UsageError, match=r"2 things are wrong: \(1\) .*'kernl'.* \(2\) .*'tune.x'"):
        read("kernl, 25%, tune.x=1")


def test_seeds():
    assert read_variants("kernel", plan(tune={"seed": 7}))[1] == [7]
    assert read_variants("kernel", plan(), (3, 1))[1] == [3, 1]
    for seeds in ((), (0, 0), (-1,)):
        with pytest.raises(UsageError, match="seeds cannot be"):
            read_variants("kernel", plan(), seeds)


def test_only_a_closed_form_of_all_images_has_no_seed():
    assert [variant.seeded for variant in read("kernel, projection, projection+50%")] == [
        True, False, True,
    ]  # fmt: skip


def test_a_folder_is_named_after_its_variant():
    names = [
        "kernel",
        "25%",
        "tune.kernel=gaussian+tune.learn_kernel=false",
        "tune.betas=[0.8,0.9]",
    ]
    variants = read(", ".join(names))
    folders = [variant.folder(0, 0) for variant in variants]
    assert folders[:3] == ["kernel", "25-percent", "kernel=gaussian+learn_kernel=false"]
    assert folders[3].startswith("betas=-0.8-0.9--")  # and a hash, for what the name lost
    assert variants[0].folder(2, 0) == "kernel-seed-2"


def test_variants_are_read_without_torch():
    code = "import sys, lateen.tuning.variants; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
