"""CLIP_benchmark's metrics, of a model loaded as it loads one, are the numbers that lateen gives.

It needs torchvision, which the plain CPU builds of torch cannot load: what needs the package skips
where it is not, and its whole command where torchvision is not. docs/guide.md says how it was run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import toys
from numpy.lib import NumpyVersion
from torch.utils.data import DataLoader

from lateen.errors import MissingExtraError, UsageError
from lateen.evaluation import evaluate
from lateen.integrations.harnesses import clip_benchmark as door
from lateen.metrics.choice import choice_hits, percent
from lateen.model import AlignedModel
from lateen.model.model import as_image

NAMES = ["a dog", "the beach", "grass", "a big cat", "the number", "red"]
TEMPLATES = ["a {} on the grass", "the small {}"]
SHADES = [(230, 20, 30), (10, 60, 200), (30, 160, 40), (240, 230, 200), (120, 10, 120),
          (20, 20, 20), (200, 120, 10), (90, 90, 90), (10, 200, 200), (250, 250, 250),
          (130, 60, 20), (60, 10, 240)]  # fmt: skip

ACCURACY = pytest.mark.skipif(
    NumpyVersion(np.__version__) >= "2.4.0",
    reason="CLIP_benchmark 1.6.2 makes a float of an array of one value, which NumPy 2.4 refuses",
)


@pytest.fixture
def folder(small: AlignedModel, tmp_path: Path) -> Path:
    small.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def pairs(tmp_path: Path) -> list[tuple[Path, list[str]]]:
    """Twelve pictures with two captions each, and the tables of them for both programs."""
    made = []
    for i, shade in enumerate(SHADES):
        path = toys.painted(tmp_path / "images" / f"{i:02d}.jpg", shade, seed=i)
        made.append((path, [f"{NAMES[i % 6]} runs {i}", f"{NAMES[i % 5]} on {NAMES[i % 4]}"]))
    rows = [json.dumps({"image": path.name, "caption": captions}) for path, captions in made]
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    lines = [f"{path.name},{caption}" for path, captions in made for caption in captions]
    (tmp_path / "pairs.txt").write_text("\n".join(["image,caption", *lines]))
    return made


@pytest.fixture
def classes(pairs: list[tuple[Path, list[str]]], tmp_path: Path) -> Path:
    """The pictures in a folder for each of six classes."""
    for index, (path, _) in enumerate(pairs):
        target = tmp_path / "classes" / NAMES[index % 6] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path / "classes"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The names that are taken of CLIP_benchmark, without it."""
    package, models = ModuleType("clip_benchmark"), ModuleType("clip_benchmark.models")
    vars(models).update(TYPE2FUNC={"open_clip": print}, MODEL_TYPES=["open_clip"])
    vars(package)["models"] = models
    monkeypatch.setitem(sys.modules, "clip_benchmark", package)
    monkeypatch.setitem(sys.modules, "clip_benchmark.models", models)
    return models


class Rows(list[Any]):
    """A dataset with its classes, as CLIP_benchmark has them."""

    classes = NAMES


def captioned(rows: Sequence[tuple[torch.Tensor, Any]]) -> tuple[torch.Tensor, list[Any]]:
    return torch.stack([image for image, _ in rows]), [captions for _, captions in rows]


def test_the_type_is_added_once(stand_in: ModuleType) -> None:
    door.register()
    door.register()
    assert stand_in.MODEL_TYPES == ["open_clip", "lateen"]
    assert stand_in.TYPE2FUNC["lateen"] is door.load_lateen


def test_what_is_loaded_is_model_transform_and_tokenizer(
    folder: Path, small: AlignedModel, pairs: list[tuple[Path, list[str]]]
) -> None:
    model, transform, tokenizer = door.load_lateen(
        model_name=str(folder), pretrained="x", cache_dir=None, device="cpu"
    )
    pixels = torch.stack([transform(as_image(path)) for path, _ in pairs])
    expected = small.encode_image([path for path, _ in pairs], normalize=False)
    torch.testing.assert_close(model.encode_image(pixels.to("cpu")), expected, atol=1e-5, rtol=0)
    expected = small.encode_text(NAMES, normalize=False)
    found = model.encode_text(tokenizer(NAMES).to("cpu"))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_device_that_is_not_there(folder: Path) -> None:
    with pytest.raises(UsageError, match="no device 'cuda:99'"):
        door.load_lateen(str(folder), device="cuda:99")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "clip_benchmark", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lateen\[clip-benchmark\]'"):
        door.register()


def test_beside_a_torchvision_for_another_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clip_benchmark").mkdir()
    fails = 'raise RuntimeError("operator torchvision::nms does not exist")'
    (tmp_path / "clip_benchmark" / "__init__.py").touch()
    (tmp_path / "clip_benchmark" / "models.py").write_text(fails)
    for name in [name for name in sys.modules if name.partition(".")[0] == "clip_benchmark"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=r"torchvision::nms.*an environment of its own"):
        door.register()
    sys.modules.pop("clip_benchmark")


def started(stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch, words: str) -> list[str]:
    """What the command is started with, for such words."""
    cli, seen = ModuleType("clip_benchmark.cli"), list[str]()
    vars(cli)["main"] = lambda: seen.extend(sys.argv[1:])
    monkeypatch.setitem(sys.modules, "clip_benchmark.cli", cli)
    monkeypatch.setattr(sys, "argv", ["clip_benchmark", *words.split()])
    door.main()
    return seen


def test_the_command_asks_where_results_go_before_it_starts(
    stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in ("eval --model_type lateen --model a/b", "eval --model_type=lateen"):
        with pytest.raises(SystemExit, match=r"^error: .*--output FILE\.json"):
            started(stand_in, monkeypatch, words)


def test_results_name_no_weights_of_open_clip(
    stand_in: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = "eval --model_type lateen --output a.json"
    assert started(stand_in, monkeypatch, given)[-2:] == ["--pretrained", "lateen"]
    for words in (f"{given} --pretrained=mine", "eval --model ViT-B-32", "build lateen"):
        assert started(stand_in, monkeypatch, words) == words.split()


@ACCURACY
@pytest.mark.filterwarnings("ignore:Conversion of an array")
def test_zero_shot_classification(
    folder: Path, pairs: list[tuple[Path, list[str]]], classes: Path
) -> None:
    theirs = pytest.importorskip("clip_benchmark.metrics.zeroshot_classification")
    model, transform, tokenizer = door.load_lateen(str(folder))
    rows = Rows((transform(as_image(path)), i % 6) for i, (path, _) in enumerate(pairs))
    found = theirs.evaluate(
        model, DataLoader(rows, batch_size=5), tokenizer, NAMES,
        [each.replace("{}", "{c}") for each in TEMPLATES], device="cpu", amp=False,
    )  # fmt: skip
    ours = evaluate(model.model, "classification", images=classes, templates=TEMPLATES)
    assert 100 * found["acc1"] == pytest.approx(ours["top1"])
    assert 100 * found["acc5"] == pytest.approx(ours["top5"])
    assert 100 * found["mean_per_class_recall"] == pytest.approx(ours["mean_per_class"])
    assert 0 < found["acc1"] < found["acc5"] < 1


def test_zero_shot_retrieval(
    folder: Path, pairs: list[tuple[Path, list[str]]], tmp_path: Path
) -> None:
    theirs = pytest.importorskip("clip_benchmark.metrics.zeroshot_retrieval")
    model, transform, tokenizer = door.load_lateen(str(folder))
    rows = [(transform(as_image(path)), captions) for path, captions in pairs]
    found = theirs.evaluate(
        model, DataLoader(rows, batch_size=5, collate_fn=captioned), tokenizer, device="cpu",
        amp=False, recall_k_list=[1, 5, 10],
    )  # fmt: skip
    check_retrieval(found, model.model, tmp_path)


def check_retrieval(found: dict[str, float], model: AlignedModel, place: Path) -> None:
    ours = evaluate(model, "retrieval", captions=place / "pairs.jsonl", images=place / "images")
    ways = {"text_to_image": "image_retrieval", "image_to_text": "text_retrieval"}
    for way, name in ways.items():
        for k in (1, 5, 10):
            assert 100 * found[f"{name}_recall@{k}"] == pytest.approx(ours[way][f"R@{k}"], abs=1e-4)
    assert 0 < found["image_retrieval_recall@5"] < found["image_retrieval_recall@10"] < 1


def test_choosing_a_caption(folder: Path, pairs: list[tuple[Path, list[str]]]) -> None:
    theirs = pytest.importorskip("clip_benchmark.metrics.image_caption_selection")
    model, transform, tokenizer = door.load_lateen(str(folder))
    rows = [(transform(as_image(path)), captions) for path, captions in pairs]
    found = theirs.evaluate(
        model, DataLoader(rows, batch_size=5, collate_fn=captioned), tokenizer, device="cpu",
        amp=False,
    )  # fmt: skip
    image = model.model.encode_image([path for path, _ in pairs])
    text = model.model.encode_text([each for _, captions in pairs for each in captions])
    scores = (image[:, None] @ text.view(len(pairs), 2, -1).transpose(1, 2))[:, 0]
    assert 100 * found["text_acc"] == pytest.approx(percent(choice_hits(scores)), abs=1e-4)
    assert 0 < found["text_acc"] < 1


def command(*words: object) -> dict[str, Any]:
    """What ``clip_benchmark eval`` writes; skips where it cannot be loaded."""
    probe = [sys.executable, "-c", "import clip_benchmark.cli"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("clip_benchmark and a torchvision that fits this torch are not installed")
    module = [sys.executable, "-m", door.__name__, "eval", "--model_type", "lateen"]
    options = ["--num_workers", "0", "--no_amp", "--split", "test"]
    done = subprocess.run([*module, *map(str, words), *options], capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    written = json.loads(Path(str(words[-1])).read_text())
    assert written["pretrained"] == "lateen"
    found: dict[str, Any] = written["metrics"]
    return found


@pytest.mark.slow
def test_its_command_on_captions(
    folder: Path, pairs: list[tuple[Path, list[str]]], tmp_path: Path
) -> None:
    found = command(
        "--dataset", "flickr8k", "--dataset_root", tmp_path / "images", "--annotation_file",
        tmp_path / "pairs.txt", "--model", folder, "--recall_k", 1, 5, 10, "--output",
        tmp_path / "found.json",
    )  # fmt: skip
    check_retrieval(found, AlignedModel.from_pretrained(folder), tmp_path)


@ACCURACY
@pytest.mark.slow
def test_its_command_on_classes(
    folder: Path, pairs: list[tuple[Path, list[str]]], classes: Path, tmp_path: Path
) -> None:
    root = tmp_path / "wds"
    (root / "test").mkdir(parents=True)
    (root / "test" / "nshards.txt").write_text("1")
    (root / "classnames.txt").write_text("\n".join(NAMES))
    templates = [each.replace("{}", "{c}") for each in TEMPLATES]
    (root / "zeroshot_classification_templates.txt").write_text("\n".join(templates))
    with tarfile.open(root / "test" / "0.tar", "w") as tar:
        for index, (path, _) in enumerate(pairs):
            (tmp_path / "class").write_text(str(index % 6))
            tar.add(path, f"{index}.jpg")
            tar.add(tmp_path / "class", f"{index}.cls")
    found = command("--dataset", "wds/own", "--dataset_root", root, "--model", folder,
                    "--output", tmp_path / "found.json")  # fmt: skip
    ours = evaluate(AlignedModel.from_pretrained(folder), "classification", images=classes,
                    templates=TEMPLATES)  # fmt: skip
    assert 100 * found["acc1"] == pytest.approx(ours["top1"])
    assert 100 * found["acc5"] == pytest.approx(ours["top5"])
