"""Published prompts are read where they are installed or beside the data, and never imported."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from lateen.data.labels import SETS
from lateen.data.published import as_templates, published_templates, templates_of_set
from lateen.errors import DataError, UsageError

LISTS = {"imagenet1k": ["one {c}.", "a {c}?"], "cifar10": ["tiny {c}."], "cars": ["{c}, a car."]}
SOURCE = """
raise RuntimeError("this file is read, not run")
OPENAI_IMAGENET_TEMPLATES = (
    lambda c: f'first {c}.',
    lambda c: f"a {c} in 'quotes'.",
    "third {c}.",
)
SIMPLE_IMAGENET_TEMPLATES = [lambda name: f"simple {name}"]
OTHER = 3
"""


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that packages are installed in; neither is there."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder)])
    for name in ("open_clip", "clip_benchmark"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return folder


def install(packages: Path, name: str, file: str, content: str) -> Path:
    path = packages / name / file
    path.parent.mkdir(parents=True, exist_ok=True)
    (packages / name / "__init__.py").write_text("raise RuntimeError('imported')")
    path.write_text(content)
    return path


def install_open_clip(packages: Path, content: str = SOURCE) -> Path:
    return install(packages, "open_clip", "zero_shot_metadata.py", content)


def install_benchmark(packages: Path, lists: object = LISTS) -> Path:
    file = "datasets/en_zeroshot_classification_templates.json"
    return install(packages, "clip_benchmark", file, json.dumps(lists))


def test_open_clip_has_those_of_imagenet(packages: Path) -> None:
    install_open_clip(packages)
    templates, source = published_templates("openai")
    assert templates == ("first {}.", "a {} in 'quotes'.", "third {}.")
    assert source == "open_clip, OPENAI_IMAGENET_TEMPLATES"
    assert published_templates("openai-7").templates == ("simple {}",)
    assert as_templates("openai") == templates


def test_a_set_has_its_own_where_clip_benchmark_is(packages: Path) -> None:
    install_open_clip(packages)
    install_benchmark(packages)
    assert published_templates("openai", "cifar10").templates == ("tiny {}.",)
    templates, source = published_templates("openai")
    assert (templates, source) == (("one {}.", "a {}?"), "clip_benchmark, imagenet1k")
    assert published_templates("openai-7", "cifar10").templates == ("simple {}",)


def test_another_sets_templates_are_told_to_be_that(
    packages: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install_open_clip(packages)
    with caplog.at_level(logging.WARNING, logger="lateen"):
        published_templates("openai", "cifar10")
    assert "of ImageNet alone" in caplog.text
    assert "cifar10 come with CLIP_benchmark" in caplog.text
    install_benchmark(packages)
    with caplog.at_level(logging.WARNING, logger="lateen"):
        assert published_templates("openai", "fer2013").source.endswith("imagenet1k")
    assert "no templates of fer2013: those of imagenet1k are taken" in caplog.text


def test_files_beside_the_data_stand_in_for_packages(packages: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"published by others.*pip install --no-deps clip-bench"):
        published_templates("openai", None, tmp_path)
    with pytest.raises(UsageError, match=r"pip install --no-deps open_clip_torch;"):
        published_templates("openai-7")
    (tmp_path / "templates.txt").write_text("a {} here\n")
    found = published_templates("openai-7", None, tmp_path)
    assert found == (("a {} here",), "templates.txt beside the data")
    (tmp_path / "templates.json").write_text('["{c}"]')
    assert published_templates("openai", None, tmp_path).templates == ("{}",)
    name = "en_zeroshot_classification_templates.json"
    (tmp_path / name).write_text(json.dumps(LISTS))
    found = published_templates("openai", "cars", tmp_path)
    assert found == (("{}, a car.",), f"{name} beside the data, cars")


def test_a_file_of_many_sets_has_one_for_this(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    file.write_text(json.dumps(LISTS))
    found = templates_of_set(file, "cifar10")
    assert found is not None
    assert (found.templates, found.source) == (("tiny {}.",), f"{file}, cifar10")
    file.write_text('["{}"]')
    assert templates_of_set(file, "cifar10") is None
    file.write_text('{"a": ["{}"], "b": ["{}"]}')
    with pytest.raises(DataError, match="no templates of imagenet1k"):
        templates_of_set(file, "cifar10")


@pytest.mark.parametrize(
    "content",
    [
        "OPENAI_IMAGENET_TEMPLATES = 3", "X = ()", "def", "OPENAI_IMAGENET_TEMPLATES = (f(),)",
        "OPENAI_IMAGENET_TEMPLATES = (lambda c: f'{other}',)",
    ],
)  # fmt: skip
def test_a_release_that_has_them_otherwise_is_said(packages: Path, content: str) -> None:
    file = install_open_clip(packages, content)
    with pytest.raises(DataError, match="has no list OPENAI_IMAGENET_TEMPLATES"):
        published_templates("openai")
    assert file.is_file()


def test_names_that_nobody_published_are_refused() -> None:
    with pytest.raises(UsageError, match="no published templates 'mine'"):
        published_templates("mine")


def test_sets_are_called_as_clip_benchmark_calls_them() -> None:
    names = {
        name: SETS[name].published for name in ("imagenet", "cifar10", "flowers102", "eurosat")
    }
    assert names == {
        "imagenet": "imagenet1k", "cifar10": "cifar10", "flowers102": "flowers",
        "eurosat": "eurosat",
    }  # fmt: skip
