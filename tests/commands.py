"""The command line as tests call it, and a model that it can be given."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lateen.cli import main
from lateen.encoders import Encoder, load_encoder
from lateen.model import AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

_STAGE = re.compile(r"^· .* in \d+\.\d s\n", re.MULTILINE)


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of ``lateen WORDS``; without the lines that say
    that a stage has ended, which depend on what was done before."""
    code, out, err = call_whole(capsys, *words)
    return code, out, _STAGE.sub("", err)


def call_whole(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """The same with these lines."""
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


def evaluated(
    capsys: pytest.CaptureFixture[str], model: Path, task: str, *words: object
) -> tuple[dict[str, Any], str]:
    """The result of ``lateen evaluate``, and what it warned of."""
    code, out, err = call(capsys, "evaluate", model, "--task", task, *words, "--json")
    assert code == 0, err
    return json.loads(out), err


def saved_model(folder: Path, vision: Encoder | None = None, text: Encoder | None = None) -> Path:
    """The folder of a model with identity heads, of the toys' encoders if none are given."""
    image = vision or load_encoder("toys:colour_encoder", "image")
    words = text or load_encoder("toys:word_encoder", "text")
    dims = image.info.dim, words.info.dim
    head = HeadSection(name="identity", vision="identity", dim=dims[0], dropout=0.0)
    made = AlignedModel.build(
        AlignmentHeads(head, *dims), image.info.as_dict(), words.info.as_dict(), head.model_dump()
    )
    made.save_pretrained(folder)
    return folder


def calibrated_model(folder: Path, bias: float, images: int = 100) -> Path:
    """A model of the toys that says of a cosine how likely a pair is: σ(40 · cosine + bias)."""
    saved_model(folder)
    config = json.loads((folder / "config.json").read_text())
    known = {"scale": 40.0, "bias": bias, "error": None, "before": None, "one_in": 512}
    config["training"] = {"calibration": {**known, "images": images}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
