"""``lateen import`` and ``lateen export``: SAIL's checkpoints, and which option goes with what."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from commands import call

from lateen.model import AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A SAIL checkpoint in the working folder, which holds nothing else."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    head, info = HeadSection(name="glu", dim=8, width=2), {"id": "x", "dim": 6}
    model = AlignedModel.build(AlignmentHeads(head, 6, 6), info, info, head.model_dump())
    model.save_sail_checkpoint(folder / "sail.pt")
    return Path("sail.pt")


def test_a_checkpoint_becomes_a_model_and_the_model_that_checkpoint(
    checkpoint: Path, capsys: Capture
) -> None:
    code, out, err = call(
        capsys, "import", checkpoint, "--format", "sail", "--out", "clip",
        "--vision.encoder", "toys:colour_encoder",
    )  # fmt: skip
    assert (code, err) == (0, "")
    for shown in ("glu", "toys:colour_encoder", "unknown", "20", "-10"):
        assert shown in out
    assert "texts can be encoded once --text.encoder says with what" in out
    assert "images can be" not in out
    assert AlignedModel.from_pretrained("clip").vision_encoder.info.id == "toys:colour_encoder"
    code, out, err = call(capsys, "export", "clip", "--format", "sail", "--out", "again.pt")
    assert (code, err) == (0, "")
    assert "again.pt" in out
    before, after = (torch.load(file, weights_only=True) for file in ("sail.pt", "again.pt"))
    assert before["name"] == after["name"] == "sail"
    assert before["state_dict"].keys() == after["state_dict"].keys()
    for key, tensor in before["state_dict"].items():
        assert torch.equal(after["state_dict"][key], tensor), key


def test_both_ways_print_json_and_replace_when_told(checkpoint: Path, capsys: Capture) -> None:
    words = ["import", checkpoint, "--format", "sail", "--out", "clip", "--json"]
    code, out, _ = call(capsys, *words)
    assert code == 0
    shown = json.loads(out)
    # Per head: norm 12, f1 and f2 84 each, g 104; and the scale and the bias.
    expected = {
        "model": "clip", "image_head": "glu", "text_head": "glu", "width": 2, "image_dim": 6,
        "text_dim": 6, "dim": 8, "parameters": 570, "bias": -10.0, "checkpoint": "sail",
    }  # fmt: skip
    assert {key: shown[key] for key in expected} == expected
    assert shown["scale"] == pytest.approx(20)
    code, out, err = call(capsys, *words)
    assert (code, out) == (2, "")
    assert "clip already holds a model" in err
    assert call(capsys, *words, "--overwrite")[0] == 0
    words = ["export", "clip", "--format", "sail", "--out", checkpoint, "--json"]
    code, out, err = call(capsys, *words)
    assert (code, out) == (2, "")
    assert "sail.pt exists" in err
    code, out, _ = call(capsys, *words, "--overwrite")
    assert json.loads(out)["file"] == "sail.pt"


SAIL = ["import", "sail.pt", "--format", "sail", "--out", "o"]
FEATURES = ["import", "f.npy", "--modality", "image", "--encoder", "e", "--out", "o"]
WRONG: list[tuple[Sequence[str], int, str]] = [
    ([*SAIL, "--modality", "image"], 2, "--modality belongs to --format features"),
    ([*SAIL, "--dtype", "float16"], 2, "--dtype belongs to --format features"),
    ([*FEATURES, "--vision.encoder", "e"], 2, "--vision.encoder belongs to --format sail"),
    ([*FEATURES, "--trust-remote-code"], 2, "--trust-remote-code belongs to --format sail"),
    ([*FEATURES, "--text.pooling", "cls"], 2, "--text.pooling belongs to --format sail"),
    (["import", "sail.pt", "--out", "o"], 2, "needs --modality (image or text) and --encoder"),
    (["import", "sail.pt", "--format", "sial", "--out", "o"], 2, 'Did you mean "sail"'),
    (["import", "sail.pt", "--format", "sail"], 2, "--out"),
    ([*SAIL, "--vision.pooling", "cls"], 2, "--vision.pooling needs --vision.encoder"),
    ([*SAIL, "--text.encoder", "toys:colour_encoder"], 1, "encodes images, not texts"),
    ([*SAIL, "--vision.encoder", "toys:none"], 1, "cannot find the encoder factory 'toys:none'"),
    (["import", "no.pt", "--format", "sail", "--out", "o"], 1, "there is no file no.pt"),
    (["import", "text.pt", "--format", "sail", "--out", "o"], 1, "cannot be loaded as tensors"),
    (["import", "sail.pt", "--format", "sail", "--out", "."], 2, ". exists and is no folder of a"),
    (
        ["import", "sail.pt", "--format", "sail", "--out", ".", "--overwrite"],
        2,
        ". exists and is no folder of a model",
    ),
    (["import", "sail.pt", "--format", "sail", "--out", "text.pt"], 2, "text.pt exists and is no"),
    (
        ["export", "nowhere", "--format", "sail", "--out", "a.pt"],
        1,
        "nowhere is not a lateen model",
    ),
    (["export", "nowhere", "--format", "sail", "--out", "."], 2, ". is a folder"),
    (["export", "nowhere", "--format", "sail", "--out", "text.pt"], 2, "text.pt exists"),
    (["export", "nowhere", "--out", "a.pt"], 2, "--to"),
    (["export", "nowhere", "--format", "gguf", "--out", "a.pt"], 2, '"sail"'),
]


@pytest.mark.parametrize(("words", "code", "message"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_wrong_input_is_one_line_and_writes_nothing(
    words: Sequence[str], code: int, message: str, checkpoint: Path, capsys: Capture
) -> None:
    Path("text.pt").write_text("no torch file")
    got, out, err = call(capsys, *words)
    assert message in err
    assert (got, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert sorted(path.name for path in Path().iterdir()) == ["sail.pt", "text.pt"]


def test_a_model_that_the_format_cannot_hold_is_not_exported(
    checkpoint: Path, capsys: Capture
) -> None:
    head, info = HeadSection(name="glu", dim=6, depth=2), {"id": "x", "dim": 6}
    model = AlignedModel.build(AlignmentHeads(head, 6, 6), info, info, head.model_dump())
    model.save_pretrained("deep")
    code, _, err = call(capsys, "export", "deep", "--format", "sail", "--out", "deep.pt")
    assert code == 1
    assert "cannot hold this model's vision head" in err
    assert not Path("deep.pt").exists()
