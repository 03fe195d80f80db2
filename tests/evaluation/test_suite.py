from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import dense_toys
import numpy as np
import pytest
import toys
from benchmark_toys import (
    BlindEncoder,
    check_intervals,
    colour_model,
    mmvp_folder,
    picture,
    winoground_images,
    winoground_row,
    write,
)
from labelled_toys import benchmark_folder
from PIL import Image

from lateen.data.labels import SETS
from lateen.encoders import load_encoder
from lateen.errors import BusyError, DataError, UsageError
from lateen.evaluation import SUITES, TASKS, compare, evaluate_suite
from lateen.evaluation.published import MLLM_SUITES, PUBLISHED
from lateen.evaluation.task import RESULT_KINDS
from lateen.files import folder_lock
from lateen.model import AlignedModel
from lateen.model.config import AlignedConfig

EUROSAT = ["red", "green", "blue", *(f"other {i}" for i in range(7))]


def eurosat(root: Path) -> Path:
    return benchmark_folder(
        root, EUROSAT, test=[("red", 0), ("green", 1), ("blue", 2), ("blue", 0)],
        train=[("red", 0)],
    )  # fmt: skip


def karpathy(root: Path, name: str, folder: str) -> None:
    images = []
    for index, colour in enumerate(["red", "green", "blue", "white"]):
        write(root / name / folder / f"{index}.png", picture(colour))
        said = [{"raw": f"{colour} {i}"} for i in range(6)]
        split = "test" if index else "train"
        images.append({"filename": f"{index}.png", "split": split, "sentences": said})
    write(root / name / f"dataset_{name}.json", {"images": images})


def everything(root: Path) -> Path:
    """A little of each kind of set, in the published layouts."""
    eurosat(root / "wds_vtab-eurosat")
    karpathy(root, "coco", "images")
    karpathy(root, "flickr30k", "flickr30k-images")
    examples = [winoground_row(0, "red and blue", "green and white")]
    write(root / "winoground" / "examples.jsonl", "\n".join(map(json.dumps, examples)))
    for name, data in winoground_images(examples).items():
        write(root / "winoground" / "images" / f"{name}.png", data)
    pair = {"filename": "1.jpg", "caption": "red", "negative_caption": "blue"}
    write(root / "sugarcrepe" / "replace_obj.json", {"0": pair})
    write(root / "coco" / "val2017" / "1.jpg", picture("red", kind="JPEG"))
    mmvp_folder(root / "MMVP_VLM", [(1, "Text", "red"), (2, "Text", "blue")])
    for kind, pixels in (("images", picture("red", "blue")), ("annotations", _mask())):
        end = "jpg" if kind == "images" else "png"
        write(root / "ade20k" / kind / "validation" / f"a.{end}", pixels)
    return settled(root)


def _mask() -> bytes:
    import io

    buffer = io.BytesIO()
    classes = np.repeat(np.array([[1, 2]], np.uint8), 16, axis=1).repeat(32, axis=0)
    Image.fromarray(classes).save(buffer, "PNG")
    return buffer.getvalue()


def settled(root: Path, at: float = 1e9) -> Path:
    """The same files, as of long ago."""
    for path in root.rglob("*"):
        if path.is_file():
            os.utime(path, (at, at))
    return root


def states(summary: dict[str, Any]) -> dict[str, str]:
    return {e["name"]: e["state"] for e in summary["evaluations"] if e["state"] != "missing"}


@pytest.fixture(scope="module")
def model() -> AlignedModel:
    return colour_model()


def test_what_is_there_is_run_what_fails_is_told_what_is_missing_is_named(
    model: AlignedModel, tmp_path: Path
) -> None:
    root = everything(tmp_path / "data")
    summary, results = evaluate_suite(model, root, tmp_path / "out", place="runs/m")
    found = states(summary)
    assert found.pop("ade20k") == "failed"  # this model has no features per patch
    assert found == dict.fromkeys(
        ("eurosat", "coco-retrieval", "flickr30k-retrieval", "winoground", "sugarcrepe",
         "mmvp-vlm"), "done",
    )  # fmt: skip
    assert results["eurosat"]["score"] == 75
    for result in results.values():
        check_intervals(result)
    assert results["eurosat"]["conditions"]["model"] == summary["model_key"]
    for name in ("coco-retrieval", "flickr30k-retrieval"):
        assert (results[name]["images"], results[name]["captions"]) == (3, 15)  # test, first five
        assert results[name]["text_to_image"]["R@1"] == 100
    assert results["winoground"]["group"] == 100
    assert results["sugarcrepe"]["accuracy"] == 100
    assert results["mmvp-vlm"]["pair_accuracy"] == 100
    on_disk = json.loads((tmp_path / "out" / "suite.json").read_text())
    assert on_disk["model"]["place"] == "runs/m"
    entries = {each["name"]: each for each in on_disk["evaluations"]}
    assert len(entries) == len(SUITES["paper"]) == len(on_disk["evaluations"])
    assert entries["imagenet"]["state"] == "missing"
    assert entries["imagenet"]["looked_for"][:2] == ["imagenet", "wds_imagenet1k"]
    assert entries["imagenet"]["gated"]
    assert "ade20k" not in results
    assert "no features per patch" in entries["ade20k"]["message"]
    assert not (tmp_path / "out" / "ade20k.json").exists()
    saved = json.loads((tmp_path / "out" / "eurosat.json").read_text())
    assert {"task", "model", "set", "templates", "seed", "options", "conditions"} <= saved.keys()
    page = (tmp_path / "out" / "report.html").read_text()
    for text in ("mmvp-vlm: pair accuracy", "chance", "no features per patch", "food101",
                 "Conditions", "<img"):  # fmt: skip
        assert text in page
    assert 'src="http' not in page


def test_dense_sets_and_their_pictures(tmp_path: Path) -> None:
    root = everything(tmp_path / "data")
    for other in root.iterdir():
        if other.name != "ade20k":
            shutil.rmtree(other)
    summary, results = evaluate_suite(dense_toys.model(), root, tmp_path / "out")
    assert states(summary) == {"ade20k": "done"}
    assert results["ade20k"]["set"] == "ade20k"
    assert (tmp_path / "out" / "ade20k" / "overlays" / "a.png").is_file()
    assert "<img" in (tmp_path / "out" / "report.html").read_text()
    for kind in ("images", "annotations"):
        [file] = (root / "ade20k" / kind / "validation").iterdir()
        file.rename(file.with_stem("b"))
    evaluate_suite(dense_toys.model(), root, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'alt="b"' in page
    assert 'alt="a"' not in page, "a picture of data that are no longer there"


def test_what_is_done_is_not_run_again_unless_anything_changed(
    model: AlignedModel, tmp_path: Path
) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    eurosat(root / "eurosat")
    settled(root)

    def again(which: AlignedModel = model) -> str:
        return states(evaluate_suite(which, root, out)[0])["eurosat"]

    assert [again(), again()] == ["done", "kept"]
    first = json.loads((out / "eurosat.json").read_text())
    assert again(colour_model(BlindEncoder())) == "done"
    assert [again(), again()] == ["done", "kept"]
    file = root / "eurosat" / "classnames.txt"
    file.write_text(file.read_text().replace("red", "rot"))
    settled(root, at=1e9 + 1)
    assert again() == "done"
    changed = json.loads((out / "eurosat.json").read_text())
    assert changed["conditions"]["data"] != first["conditions"]["data"]
    assert changed["score"] < first["score"]
    (out / "eurosat.json").write_text("{}")
    assert again() == "done"
    saved = json.loads((out / "eurosat.json").read_text())
    saved["conditions"]["versions"]["torch"] = "1.0"
    (out / "eurosat.json").write_text(json.dumps(saved))
    assert again() == "done"


def test_files_that_are_too_new_to_tell_a_change_are_read_again(
    model: AlignedModel, tmp_path: Path
) -> None:
    eurosat(tmp_path / "data" / "eurosat")
    for _ in range(2):
        summary, _results = evaluate_suite(model, tmp_path / "data", tmp_path / "out")
        assert states(summary) == {"eurosat": "done"}


def test_a_result_that_can_no_longer_be_had_does_not_stay(
    model: AlignedModel, tmp_path: Path
) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    eurosat(root / "eurosat")
    evaluate_suite(model, root, out)
    (root / "eurosat" / "classnames.txt").write_text("one\n")
    summary, results = evaluate_suite(model, root, out)
    assert (states(summary), results) == ({"eurosat": "failed"}, {})
    assert not (out / "eurosat.json").exists()
    assert "Failed" in (out / "report.html").read_text()


def test_an_unforeseen_fault_of_one_does_not_stop_the_rest(
    model: AlignedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = everything(tmp_path / "data")

    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("lateen.evaluation.tasks.winoground.score_cases", fault)
    summary, results = evaluate_suite(model, root, tmp_path / "out")
    assert states(summary)["winoground"] == "failed"
    assert "mmvp-vlm" in results
    [entry] = [e for e in summary["evaluations"] if e["name"] == "winoground"]
    assert entry["message"] == "unexpected ZeroDivisionError: by zero"


def test_links_are_followed_once(model: AlignedModel, tmp_path: Path) -> None:
    eurosat(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "eurosat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "self").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "nowhere").symlink_to(tmp_path / "gone")
    settled(tmp_path / "elsewhere")
    runs = [evaluate_suite(model, tmp_path / "data", tmp_path / "out")[0] for _ in range(2)]
    assert [states(run)["eurosat"] for run in runs] == ["done", "kept"]


def test_two_models_suites_are_compared(model: AlignedModel, tmp_path: Path) -> None:
    root = everything(tmp_path / "data")
    for name, each in (("sees", model), ("blind", colour_model(BlindEncoder()))):
        evaluate_suite(each, root, tmp_path / name)
    found = compare([tmp_path / "sees", tmp_path / "blind" / "suite.json"])
    assert found.labels == ("sees", "blind")
    rows = {(row.set, row.metric): row for row in found.rows}
    assert not any(row.differs for row in found.rows)  # the data is the same for both
    assert rows["winoground", "group"].values == (100, 0)
    assert rows["winoground", "group"].best == ()  # of one example nothing can be told
    assert rows["coco, test", "T2I R@1"].short == "3 of 5,000 images"
    assert not rows["coco, test", "T2I R@1"].published


def test_a_folder_without_any_set_names_the_layout(model: AlignedModel, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has none of the .* imagenet/.*coco/dataset_coco\.json"):
        evaluate_suite(model, tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match=r"of the 27 sets .*mmvp-vlm, ade20k") as kuea:
        evaluate_suite(model, tmp_path, tmp_path / "out", suite="kuea")
    assert "winoground" not in str(kuea.value)
    with pytest.raises(DataError, match="there is no folder"):
        evaluate_suite(model, tmp_path / "absent", tmp_path / "out")
    with pytest.raises(UsageError, match="Did you mean 'paper'"):
        evaluate_suite(model, tmp_path, tmp_path / "out", suite="papr")
    assert not (tmp_path / "out").exists()
    eurosat(tmp_path / "eurosat")
    with folder_lock(tmp_path / "out"), pytest.raises(BusyError):
        evaluate_suite(model, tmp_path, tmp_path / "out")


@pytest.fixture
def seeing_transformer(vit_folder: Path) -> AlignedModel:
    """A random vision transformer, and heads that nobody trained."""
    vision = load_encoder(str(vit_folder), "image", pooling="cls+mean", precision="float32")
    words = toys.WordEncoder()
    head = {"name": "linear", "dim": 4}
    made = AlignedModel(
        AlignedConfig(vision=vision.info.as_dict(), text=words.info.as_dict(), head=head)
    )
    made.set_encoders(vision, words)
    made.eval()
    return made


def test_kuea_also_probes_patches_and_shows_attention(
    seeing_transformer: AlignedModel, tmp_path: Path
) -> None:
    root, out = everything(tmp_path / "data"), tmp_path / "out"
    for kind, end in (("images", "jpg"), ("annotations", "png")):
        folder = root / "ade20k" / kind / "validation"
        shutil.copy(folder / f"a.{end}", folder / f"b.{end}")
    settled(root)
    summary, results = evaluate_suite(seeing_transformer, root, out, suite="kuea")
    assert states(summary) == dict.fromkeys(
        ("eurosat", "coco-retrieval", "flickr30k-retrieval", "mmvp-vlm", "ade20k-patches",
         "attention"), "done",
    )  # fmt: skip
    probed = results["ade20k-patches"]
    assert (probed["task"], probed["set"], probed["images"]) == ("patch-probe", "ade20k", 2)
    pictures = results["attention"]["pictures"]
    assert results["attention"]["layer"] == -2
    assert len(pictures) == 2  # those of MMVP
    assert all((out / "attention" / name).is_file() for name in pictures)
    page = (out / "report.html").read_text()
    for text in ("Suite kuea", "Patch probing: ade20k", "block -2", "2 pictures", "local recall"):
        assert text in page
    # What two suites share is evaluated once.
    kept = states(evaluate_suite(seeing_transformer, root, out, suite="sail")[0])
    assert kept == dict.fromkeys(("coco-retrieval", "flickr30k-retrieval", "mmvp-vlm"), "kept") | {
        "winoground": "done", "ade20k": "done",
    }  # fmt: skip


def test_photographs_of_your_own_are_what_attention_is_shown_of(
    seeing_transformer: AlignedModel, tmp_path: Path
) -> None:
    root = everything(tmp_path / "data")
    write(root / "attention" / "mine.png", picture("red", "blue"))
    _, results = evaluate_suite(seeing_transformer, root, tmp_path / "out", suite="kuea")
    assert results["attention"]["pictures"] == ["mine.png.png"]


def test_each_papers_suite_has_its_evaluations() -> None:
    names = {suite: {each.name for each in SUITES[suite]} for suite in SUITES}
    probed = ("svhn", "gtsrb", "clevr-distance", "clevr-counts")
    assert names["kuea"] == {
        "imagenet", "cifar10", "cifar100", "caltech101", "pets", "dtd", "fer2013", "pcam",
        "resisc45", "eurosat", "imagenet-o", "imagenet-sketch", *probed,
        *(f"{name}-probe" for name in probed), "coco-retrieval", "flickr30k-retrieval", "mmvp-vlm",
        "ade20k-patches", "coco-stuff-patches", "voc20-patches", "attention",
    }  # fmt: skip
    assert names["sail"] == {
        "imagenet", "imagenet-v2", "food101", "cifar10", "cifar100", "sun397", "stanford-cars",
        "fgvc-aircraft", "dtd", "pets", "caltech101", "flowers102", "coco-retrieval",
        "flickr30k-retrieval", "winoground", "mmvp-vlm", "ade20k", "coco-stuff", "voc20",
    }  # fmt: skip
    only = {"ade20k-patches", "coco-stuff-patches", "voc20-patches", "attention"}
    assert names["paper"] == (names["sail"] | names["kuea"] | {"sugarcrepe"}) - only
    for (task, name, metric), numbers in PUBLISHED.items():
        if task == "mllm":
            assert name in {each for suite in MLLM_SUITES.values() for each in suite}
            assert metric in RESULT_KINDS[task].headline
            continue
        measured = [e for e in SUITES["paper"] + SUITES["kuea"] if (e.task, e.set) == (task, name)]
        assert measured or name.startswith("mean of")
        assert numbers
        assert all(metric in TASKS[each.task].headline for each in measured)


def test_the_suite_has_every_set_and_says_where_to_get_it() -> None:
    suite = SUITES["paper"]
    assert len({each.name for each in suite}) == len(suite)
    assert {each.set for each in suite if each.task == "classification"} == set(SETS)
    for each in suite:
        assert each.paths
        assert each.source
    gated = {each.name for each in suite if each.gated}
    assert gated == {"imagenet", "winoground"}
