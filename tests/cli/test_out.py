"""A folder of other things is refused by every command that writes into a folder, and alike."""

import shutil
from pathlib import Path

import pytest
from test_cli import TOYS, call

from lateen.experiment import run

ASSESSMENT = """
data: {train: train.jsonl}
vision: [{encoder: "toys:colour_encoder"}]
text: [{encoder: "toys:word_encoder"}]
"""
LADDER = """
base: {data: {train: train.jsonl}}
seeds: [0]
rungs: [{name: linear}]
"""
WHAT = {
    "encode": "a feature store", "fuse": "a feature store", "import": "a feature store",
    "train": "the folder of a training", "run": "the folder of a run",
    "ablate": "the folder of a ladder", "assess": "the folder of an assessment",
    "assess-stores": "the folder of an assessment", "demo": "the folder of a demo",
}  # fmt: skip


@pytest.fixture
def words(album: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, list[object]]:
    """The words of every command, but for ``--out``."""
    for name, content in {"a": ASSESSMENT, "l": LADDER, "r": "data: {train: train.jsonl}"}.items():
        (album / f"{name}.yaml").write_text(content)
    encoded = ["encode", album / "images", "--encoder", "toys:colour_encoder"]
    texts = ["encode", album / "train.jsonl", "--encoder", "toys:word_encoder"]
    assert call(capsys, *encoded, "--out", album / "img")[0] == 0
    assert call(capsys, *texts, "--out", album / "txt")[0] == 0
    stores = ["--images", album / "img", "--texts", album / "txt"]
    root = ["--data.root", album]
    import numpy as np

    np.save(album / "f.npy", np.eye(2))
    (album / "ids.txt").write_text("a\nb\n")
    return {
        "encode": encoded, "fuse": ["fuse", album / "img", album / "img"],
        "import": ["import", album / "f.npy", "--ids", album / "ids.txt", "--modality", "image",
                   "--encoder", "mine"],
        "train": ["train", *stores], "run": ["run", album / "r.yaml", *root, *TOYS],
        "ablate": ["ablate", album / "l.yaml", *root, *TOYS],
        "assess": ["assess", album / "a.yaml", *root], "assess-stores": ["assess", *stores],
        "demo": ["demo", "--quick"],
    }  # fmt: skip


@pytest.mark.parametrize("name", WHAT)
def test_a_folder_of_other_things_is_refused(
    name: str, words: dict[str, list[object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "holiday"
    out.mkdir()
    (out / "beach.jpg").write_bytes(b"a photo")
    (out / ".hidden").write_text("")
    code, printed, err = call(capsys, *words[name], "--out", out)
    message = f"error: {out} is not empty and not {WHAT[name]} (it holds beach.jpg). "
    assert (code, printed) == (1, "")
    assert err == f"{message}Choose another --out.\n"
    assert {path.name for path in out.iterdir()} == {"beach.jpg", ".hidden"}


@pytest.mark.parametrize("name", ["encode", "train", "run", "assess", "assess-stores"])
def test_a_file_in_its_place(
    name: str, words: dict[str, list[object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = call(capsys, *words[name], "--out", tmp_path / "file")
    assert code == 1
    assert "cannot be made" in err.splitlines()[-1]


@pytest.mark.parametrize("name", ["encode", "train", "run", "ablate", "assess", "assess-stores"])
def test_its_own_folder_is_accepted_whatever_was_put_there_since(
    name: str, words: dict[str, list[object]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "own"
    small = {
        "encode": [], "assess": ["--probe.train.epochs", "1"],
        "assess-stores": ["--probe.train.epochs", "1"],
    }.get(name, ["--train.epochs", "1", "--head.dim", "4"])  # fmt: skip
    if name in ("train", "assess-stores"):
        small += ["--holdout", "0.25"]
    if name == "assess":
        small += ["--data.holdout", "0.25"]
    assert call(capsys, *words[name], *small, "--out", out)[0] == 0
    (out / "beach.jpg").write_bytes(b"a photo")
    assert call(capsys, *words[name], *small, "--out", out)[0] == 0


def test_what_a_killed_run_may_leave_is_accepted(album: Path) -> None:
    out = album / "run"
    (out / "stores" / "train-vision-00000000").mkdir(parents=True)
    (out / "train").mkdir()
    (out / "recipe.yaml").write_text("")
    data = {"root": str(album), "train": "train.jsonl"}
    sides = {"vision": {"encoder": "toys:colour_encoder"}, "text": {"encoder": "toys:word_encoder"}}
    run({"data": data, **sides, "train": {"epochs": 1, "batch": 8}}, out)


def test_a_run_of_an_earlier_version_with_a_photo_in_it(tmp_path: Path) -> None:
    earlier = Path(__file__).parents[1] / "experiment" / "earlier_run"
    root = shutil.copytree(earlier, tmp_path / "earlier")
    shutil.copy(root / "album" / "images" / "000.png", root / "run" / "beach.png")
    data = {"root": str(root / "album"), "train": "train.jsonl", "holdout": 0.25}
    sides = {
        "vision": {"encoder": "toys:colour_encoder", "dtype": "float32"},
        "text": {"encoder": "toys:word_encoder", "dtype": "float32"},
    }
    run({"data": data, **sides, "train": {"epochs": 1, "batch": 6}}, root / "run")
    assert (root / "run" / "beach.png").is_file()
