"""Loading a saved model: strict about its config, and known to transformers."""

import importlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel

import lateen.model
from lateen.errors import ModelError, UsageError
from lateen.model import AlignedConfig, AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

HEAD = HeadSection(dropout=0.0, dim=8)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    heads = AlignmentHeads(HEAD, image_dim=4, text_dim=5)
    vision, text = {"id": "a", "dim": 4}, {"id": "b", "dim": 5}
    AlignedModel.build(heads, vision, text, HEAD.model_dump()).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("head.name", "gluu", "head.name is 'gluu', it breaks: .*Did you mean 'glu'.*linear, mlp"),
        ("head.dim", 0, "head.dim is 0, it breaks: .*greater than 0"),
        ("head.dim", "wide", "head.dim is 'wide'"),
        ("head.depth", 2, "head is .* only mlp and glu can be stacked"),
        ("head.dimm", 8, "unknown key 'head.dimm'. Did you mean 'dim'"),
        ("head", 3, "head is 3, it must be a mapping"),
        ("head", None, "lacks the key 'head'"),
        ("vision.dim", ..., "lacks the key 'vision.dim'"),
        ("vision.dim", "4", "vision.dim is '4', it must be a whole number"),
        ("vision.dim", True, "vision.dim is True"),
        ("text.dim", 0, "text.dim is 0, it must be a whole number above 0"),
        ("text.id", ..., "lacks the key 'text.id'"),
        ("text.load", {"pooling": "cls"}, "text.load is .*, it must be .* name"),
        ("text.load", "bert", "text.load is 'bert'"),
        ("training", "long", "training is 'long', it must be a mapping or null"),
        ("embedded_encoders", "no", "embedded_encoders is 'no', it must be a bool"),
    ],
)
def test_a_config_that_does_not_fit_is_explained(
    saved: Path, key: str, value: Any, message: str
) -> None:
    path = saved / "config.json"
    values = json.loads(path.read_text())
    *sections, last = key.split(".")
    place = values[sections[0]] if sections else values
    if value is ...:
        del place[last]
    else:
        place[last] = value
    path.write_text(json.dumps(values))
    with pytest.raises(ModelError, match=re.escape(str(path)) + ".*" + message):
        AlignedModel.from_pretrained(saved)


def test_a_config_that_is_no_mapping_is_explained(saved: Path) -> None:
    (saved / "config.json").write_text("[1]")
    with pytest.raises(ModelError, match="type None, not a lateen model"):
        AlignedModel.from_pretrained(saved)


def test_transformers_loads_a_saved_model(saved: Path) -> None:
    own = AlignedModel.from_pretrained(saved)
    config = AutoConfig.from_pretrained(saved)
    assert isinstance(config, AlignedConfig)
    for options in ({}, {"config": config}, {"trust_remote_code": True}):
        model = AutoModel.from_pretrained(saved, **options)
        assert isinstance(model, AlignedModel)
        features = torch.randn(3, 4)
        torch.testing.assert_close(model.project_image(features), own.project_image(features))


def test_registering_again_is_no_fault() -> None:
    importlib.reload(lateen.model)


def test_an_unknown_option_is_refused_and_not_ignored(saved: Path) -> None:
    with pytest.raises(UsageError, match=r"'vision_encodr'\. Did you mean 'vision_encoder'"):
        AlignedModel.from_pretrained(saved, vision_encodr="x")
    with pytest.raises(UsageError, match="no option 'dtype'"):
        AutoModel.from_pretrained(saved, dtype=torch.float16)


def test_a_revision_is_asked_of_the_hub(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def download(name: str, revision: str | None = None, **_: object) -> str:
        asked.append((name, revision))
        if revision == "gone":
            raise OSError("404")
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    AlignedModel.from_pretrained("someone/clip", revision="v2")
    AlignedModel.from_pretrained("someone/clip")
    assert asked == [("someone/clip", "v2"), ("someone/clip", None)]
    with pytest.raises(ModelError, match="no such model at revision gone"):
        AlignedModel.from_pretrained("someone/clip", revision="gone")
