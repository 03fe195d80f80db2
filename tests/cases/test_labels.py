"""Class names, prompts and masks in the forms of other tools."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmark_toys import write
from commands import call, evaluated
from labelled_toys import benchmark_folder, class_folder
from PIL import Image

PROMPTS = ["one {} tile.", "it's {}, isn't it?"]
FORMS = {
    "JSON": ("t.json", '["one {c} tile.", "it\'s {c}, isn\'t it?"]'),
    "JSON in a text file": ("t.txt", '[\n  "one {} tile.",\n  "it\'s {}, isn\'t it?"\n]\n'),
    "pasted": ("t.txt", "'one {} tile.',\n\"it's {}, isn't it?\",\n"),
    "pasted functions": (
        "t.txt", "[\n    lambda c: f'one {c} tile.',\n    lambda c: f\"it's {c}, isn't it?\",\n]\n",
    ),
    "plain": ("t.txt", "one {} tile.\nit's {}, isn't it?\n"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), FORMS.values(), ids=FORMS)
def test_prompts_are_the_same_in_every_form(
    name: str, content: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = class_folder(tmp_path / "photos", ["red", "green"], count=2)
    (tmp_path / name).write_text(content)
    words = ("classification", "--images", photos, "--templates", tmp_path / name)
    result, err = evaluated(capsys, model, *words)
    assert (result["templates"], result["top1"], err) == (PROMPTS, 100, "")


@pytest.mark.parametrize("form", ["JSON in a text file", "pasted", "plain"])
def test_prompts_and_names_beside_data_are_the_same_in_every_form(
    form: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [("red", 0), ("green", 1), ("blue", 2), ("red", 0)]
    root = benchmark_folder(
        tmp_path / "set", ["red", "green", "blue"], test=pictures, templates=FORMS[form][1]
    )
    names = {"JSON in a text file": '["red wall", "green wall", "blue wall"]',
             "pasted": "'red wall',\n'green wall',\n'blue wall',\n",
             "plain": "red wall\ngreen wall\nblue wall\n"}[form]  # fmt: skip
    (tmp_path / "classes.txt").write_text(names)
    result, err = evaluated(capsys, model, "classification", "--data", root)
    assert (result["templates"], result["classes"], err) == (PROMPTS, 3, "")
    words = ("classification", "--data", root, "--classes", tmp_path / "classes.txt")
    result, err = evaluated(capsys, model, *words)
    assert list(result["per_class"]) == ["red wall", "green wall", "blue wall"]
    assert (result["top1"], err) == (100, "")


def test_prompts_in_quotes_and_others_do_not_go_together(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = class_folder(tmp_path / "photos", ["red", "green"], count=2)
    write(tmp_path / "t.txt", "'one {} tile.',\nall {}.\n")
    code, out, err = call(
        capsys, "evaluate", model, "--task", "classification", "--images", photos,
        "--templates", tmp_path / "t.txt",
    )  # fmt: skip
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "'one {} tile.', in quotation marks, and 'all {}.' without" in err


def views(root: Path, second: int, ignored: float = 0) -> list[object]:
    """Options for pictures whose left part is red, class 0, and whose right part blue.

    Args:
        root: the folder to draw in.
        second: the index of blue in the masks.
        ignored: the share of columns, from the left, with the index 255.
    """
    for number in range(3):
        labels = np.full((32, 64), second, np.uint8)
        labels[:, : 40 - 8 * number] = 0
        labels[:, : round(64 * ignored)] = 255
        pixels = np.full((32, 64, 3), (0, 0, 255), np.uint8)
        pixels[:, : 40 - 8 * number] = (255, 0, 0)
        for folder, content in (("images", pixels), ("masks", labels)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(content).save(root / folder / f"{number}.png")
    (root / "classes.txt").write_text("red\nblue\n")
    return ["--images", root / "images", "--masks", root / "masks",
            "--classes", root / "classes.txt"]  # fmt: skip


PATCHES = ["--vision.encoder", "dense_toys:PatchColours"]
TASKS = {
    "segmentation": ["--short-side", 32, "--window", 32, "--stride", 16],
    "patch-probe": ["--window", 32, "--holdout", 0.4],
}


@pytest.mark.parametrize("task", TASKS)
def test_masks_of_0_and_255_have_two_readings(
    task: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TASKS[task], *PATCHES]
    binary = views(tmp_path / "binary", 255)
    code, out, err = call(capsys, "evaluate", model, "--task", task, *binary, *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    for said in ("0 and 255", "255 may be ignored", "'red' is the only class", "'blue'",
                 "write 1 into the masks", "another --ignore"):  # fmt: skip
        assert said in err
    right, err = evaluated(capsys, model, task, *views(tmp_path / "right", 1), *words)
    assert err == ""
    assert (right["images"], right["ignored_pixels"], right["ignored_share"]) == (3, 0, 0)
    same, err = evaluated(capsys, model, task, *binary, *words, "--ignore", 254)
    assert "255 is 'blue'" in err
    for result in (same, right):
        for of_the_files in ("options", "conditions", "set", "ignore"):
            result.pop(of_the_files, None)
    assert same == right


@pytest.mark.parametrize("task", TASKS)
def test_a_large_share_of_ignored_pixels_is_told(
    task: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TASKS[task], *PATCHES]
    some, err = evaluated(capsys, model, task, *views(tmp_path / "some", 1, 0.25), *words)
    assert (some["ignored_share"], err) == (25, "")
    much, err = evaluated(capsys, model, task, *views(tmp_path / "much", 1, 0.375), *words)
    assert much["ignored_share"] == 37.5
    assert err.count("\n") == 1
    assert "37.5 % of the pixels are ignored (index 255)" in err


def test_masks_with_one_class_left_are_an_error(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = views(tmp_path, 255)
    (tmp_path / "classes.txt").write_text("red\nblue\nwhite\n")
    code, out, err = call(
        capsys, "evaluate", model, "--task", "segmentation", *words, *TASKS["segmentation"],
        *PATCHES,
    )  # fmt: skip
    assert (code, out) == (1, "")
    assert "of 3 classes only 'red' is in the masks" in err
    assert "--ignore" in err
