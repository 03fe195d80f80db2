"""Stores of an encoder in another Python environment: those that it makes here."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
from commands import call
from elsewhere_toys import staged

import lateen.encoders.load
from lateen.encoders import EncoderOptions, FusedEncoder, load_encoder
from lateen.encoders.other_python import OtherPython
from lateen.errors import EncoderError, LateenError, ModelError, UsageError
from lateen.experiment.preflight import check_run
from lateen.experiment.recipe import Recipe
from lateen.features import EncodeInputs, Share, encode, encode_slice, merge
from lateen.files import read_json
from lateen.model import AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

if sys.platform == "win32":
    pytest.skip("the stand-ins are shell scripts", allow_module_level=True)


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    """Of 12 images, one each."""
    lines = [{"image": f"{i}.jpg", "caption": f"the dog number {i}"} for i in range(12)]
    path = tmp_path / "captions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def digest(folder: Path) -> dict[str, str]:
    """Of each shard."""
    return {each.name: hashlib.sha256(each.read_bytes()).hexdigest()
            for each in folder.glob("shard-*")}  # fmt: skip


def test_store_model_and_command_with_this_python_as_the_other(
    captions: Path, bert_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    started = OtherPython(sys.executable, "an encoder")  # once, as it takes seconds
    monkeypatch.setattr(lateen.encoders.load, "OtherPython", lambda *_: started)
    options = ["--encoder", str(bert_folder), "--pooling", "mean", "--texts-only",
               "--dtype", "float32", "--precision", "bfloat16"]  # fmt: skip
    out, apart = tmp_path / "there", tmp_path / "here"
    call(capsys, "encode", captions, *options, "--python", sys.executable, "--out", out)
    call(capsys, "encode", captions, *options, "--out", apart)
    there, here = read_json(out / "manifest.json"), read_json(apart / "manifest.json")
    assert there["key"] == here["key"]
    assert digest(out) == digest(apart)
    added = there["versions"].items() - here["versions"].items()
    assert dict(added)["torch there"] == torch.__version__
    assert {name for name, _ in added} >= {"python there", "transformers there"}

    # A model that has it loads it again, there, and forgets the place where it is handed on.
    encoder = there["description"]["encoder"]
    assert encoder["load"]["python"] == sys.executable
    settings = HeadSection(dropout=0.0, dim=8)
    heads = AlignmentHeads(settings, image_dim=16, text_dim=16)
    vision = {"id": "imported", "modality": "image", "dim": 16}
    model = AlignedModel.build(heads, vision, encoder, settings.model_dump())
    model.save_pretrained(tmp_path / "model", local_paths=True)
    again = AlignedModel.from_pretrained(tmp_path / "model")
    again.encode_text("a dog")
    assert again.text_encoder.info.load["python"] == sys.executable
    again.save_pretrained(tmp_path / "handed", local_paths=False)
    assert "python" not in read_json(tmp_path / "handed" / "config.json")["text"]["load"]

    # Its worker is gone as soon as nobody is at the other end.
    started._requests.close()
    assert started._process.wait(20) == 0

    gone = {**encoder, "load": {**encoder["load"], "python": str(tmp_path / "gone")}}
    lost = AlignedModel.build(heads, vision, gone, settings.model_dump())
    with pytest.raises(ModelError, match=r"runs in .*gone, where there is nothing now. Make"):
        lost.encode_text("a dog")


def test_a_python_that_is_not_there_is_said_before_data_is_read(
    captions: Path, bert_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone" / "python"
    given = ["--encoder", bert_folder, "--python", gone, "--out", tmp_path / "out"]
    code, _, said = call(capsys, "encode", captions, *given)
    assert code == 2
    assert f"there is no python {gone}. Give the path" in said

    recipe = {
        "data": {"train": str(captions)},
        "text": {"encoder": str(bert_folder), "python": str(gone)},
        "vision": {"encoder": str(bert_folder), "python": str(gone.parent / "other")},
    }
    with pytest.raises(LateenError, match=r"no python .*gone/other.* no python .*gone/python"):
        check_run(recipe, tmp_path / "run")
    with pytest.raises(UsageError, match=r"cannot be trained: leave text\.python out"):
        Recipe.of({"text": {"train": True, "python": str(gone)}})


def test_a_worker_that_dies_leaves_what_is_done_and_the_same_command_goes_on(
    captions: Path, bert_folder: Path, tmp_path: Path
) -> None:
    out, dies = tmp_path / "store", tmp_path / "dies"
    python = staged(
        tmp_path / "python",
        f"if os.path.exists({str(dies)!r}) and calls > 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    floats(rows, 4)",
    )

    def run() -> None:
        encode(
            captions, str(bert_folder), out, pooling="mean", python=str(python), texts_only=True,
            shard_items=4,
        )  # fmt: skip

    dies.write_text("")
    with pytest.raises(EncoderError, match="the same command goes on from there"):
        run()
    assert len(digest(out)) == 2
    kept = digest(out)
    dies.unlink()
    run()
    assert kept.items() <= digest(out).items()
    assert read_json(out / "manifest.json")["rows"] == 12


def test_slices_keep_the_versions_of_the_other_environment(
    captions: Path, bert_folder: Path, tmp_path: Path
) -> None:
    options = EncoderOptions(pooling="mean", python=str(staged(tmp_path / "python")))
    inputs = EncodeInputs(captions, str(bert_folder), texts_only=True, options=options)
    for index in range(2):
        encode_slice(inputs, tmp_path / f"{index}", Share(index, 2), shard_items=4)
    store = merge([tmp_path / "0", tmp_path / "1"], tmp_path / "store")
    assert len(store) == 12
    assert store.manifest.versions["torch there"] == "1.9"


def test_features_that_are_not_numbers_are_left_out(
    captions: Path, bert_folder: Path, tmp_path: Path
) -> None:
    python = staged(tmp_path / "python", "floats(rows, 4, '0000c07f')")
    store = encode(
        captions, str(bert_folder), tmp_path / "store", pooling="mean", python=str(python),
        texts_only=True, allow_empty=True,
    )  # fmt: skip
    assert len(store) == 0
    assert {skip["reason"] for skip in store.skipped} == {"the encoder gave NaN or infinity"}


def test_parts_of_a_fused_encoder_may_be_elsewhere(bert_folder: Path, tmp_path: Path) -> None:
    part = {"name": str(bert_folder), "pooling": "mean"}
    there = {**part, "python": str(staged(tmp_path / "python"))}
    encoder = load_encoder("fused", "text", parts=[part, there])
    assert isinstance(encoder, FusedEncoder)
    assert encoder.encode(encoder.prepare(["a dog"])).shape == (1, 16 + 4)
    assert [each.get("python") for each in encoder.info.load["parts"]] == [None, there["python"]]
