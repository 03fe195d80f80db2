"""Features of other programs, and the ids that come with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import call

from lateen.features import Store

COUNT = 12
ROWS = np.eye(COUNT, dtype=np.float32)


def imported(
    capsys: pytest.CaptureFixture[str], features: Path, modality: str, *words: object
) -> Path:
    """The store that ``lateen import`` makes of a file, beside it."""
    out = features.with_name(f"{features.stem}-store")
    code, _, err = call(
        capsys, "import", features, "--modality", modality, "--encoder", "mine", "--out", out,
        *words,
    )  # fmt: skip
    assert (code, err) == (0, "")
    return out


def texts(folder: Path, capsys: pytest.CaptureFixture[str], ids: list[str]) -> Path:
    np.save(folder / "texts.npy", ROWS)
    (folder / "ids.txt").write_text("\n".join(ids) + "\n")
    return imported(capsys, folder / "texts.npy", "text", "--ids", folder / "ids.txt")


def joined(capsys: pytest.CaptureFixture[str], images: Path, captions: Path) -> dict[str, Any]:
    code, out, err = call(
        capsys, "evaluate", "--images", images, "--texts", captions, "--task", "retrieval", "--json"
    )
    assert (code, err) == (0, "")
    result: dict[str, Any] = json.loads(out)
    return result


def is_whole(result: dict[str, Any]) -> bool:
    """Whether every row has met its own."""
    return (result["images"], result["captions"], result["rsum"]) == (COUNT, COUNT, 600)


WRITTEN = {
    "as on Windows": lambda ids: ("\ufeff" + "\r\n".join(ids) + "\r\n").encode(),
    "with the mark alone": lambda ids: ("\ufeff" + "\n".join(ids)).encode(),
    "as JSON": lambda ids: ("\ufeff" + json.dumps(ids)).encode(),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_a_byte_order_mark_is_no_part_of_an_id(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [f"shot {number}.jpg" for number in range(COUNT)]
    np.save(tmp_path / "images.npy", ROWS)
    (tmp_path / "windows.txt").write_bytes(write(ids))
    images = imported(capsys, tmp_path / "images.npy", "image", "--ids", tmp_path / "windows.txt")
    captions = texts(tmp_path, capsys, ids)
    assert list(Store.open(images).ids) == ids
    assert is_whole(joined(capsys, images, captions))
    code, _, err = call(
        capsys, "train", "--images", images, "--texts", captions, "--missing", "drop", "--holdout",
        0.25, "--train.epochs", 1, "--train.batch", 3, "--head.dim", 4, "--out", tmp_path / "made",
    )  # fmt: skip
    assert (code, err) == (0, "")
    config = json.loads((tmp_path / "made" / "model" / "config.json").read_text())
    assert config["training"]["pairs"] == 9  # and three are held out: none is dropped


@pytest.mark.parametrize(
    "ids",
    [torch.arange(100, 112), torch.arange(100.0, 112.0), list(torch.arange(100, 112)),
     list(range(100, 112))],
    ids=["a tensor", "a tensor of floats", "tensors", "numbers"],
)  # fmt: skip
@pytest.mark.parametrize(
    "names", [("features", "ids"), ("image_features", "image_ids")], ids=["plain", "of images"]
)
def test_ids_may_be_a_tensor(
    names: tuple[str, str], ids: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({names[0]: torch.from_numpy(ROWS), names[1]: ids}, tmp_path / "images.pt")
    images = imported(capsys, tmp_path / "images.pt", "image")
    numbers = [str(number) for number in range(100, 112)]
    assert list(Store.open(images).ids) == numbers
    assert is_whole(joined(capsys, images, texts(tmp_path, capsys, numbers)))


@pytest.mark.parametrize(
    ("ids", "shown"),
    [(torch.arange(COUNT) + 0.5, "0.5"), (torch.arange(COUNT) > 3, "False"), ([None] * 12, "None")],
    ids=["halves", "truths", "nothing"],
)
def test_other_ids_are_an_error(
    ids: Any, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"features": torch.from_numpy(ROWS), "ids": ids}, tmp_path / "images.pt")
    code, out, err = call(
        capsys, "import", tmp_path / "images.pt", "--modality", "image", "--encoder", "mine",
        "--out", tmp_path / "store",
    )  # fmt: skip
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"images.pt is {shown}, neither text nor a whole number" in err
    assert not (tmp_path / "store").exists()
