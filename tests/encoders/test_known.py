"""What is known of an encoder in a folder: by its architecture, its sizes, its pooling module."""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lateen.encoders import load_encoder
from lateen.encoders.specs import FAMILIES, SPECS
from lateen.errors import EncoderError

_TINY = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "image_size": 32, "patch_size": 16,
}  # fmt: skip


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What the log said of the pooling: its one line."""
    logging.getLogger("lateen").propagate = True
    caplog.set_level(logging.INFO, logger="lateen")

    def line() -> str:
        lines = [r.getMessage() for r in caplog.records if ": pooling " in r.getMessage()]
        assert len(lines) == 1
        return lines[0]

    return line


def vision_folder(folder: Path, config: Any) -> Path:
    from transformers import AutoModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("kind", "pooling", "dim"),
    [
        ("dinov2", "cls+mean", 32), ("dinov2_with_registers", "cls+mean", 32),
        ("dinov3_vit", "cls+mean", 32), ("vit_mae", "cls+mean", 32), ("ijepa", "mean", 16),
        ("aimv2_vision_model", "mean", 16), ("clip_vision_model", "pooler", 16),
        ("siglip_vision_model", "pooler", 16),
    ],
)  # fmt: skip
def test_a_family_has_one_pooling_whatever_its_size(
    tmp_path: Path, told: Callable[[], str], kind: str, pooling: str, dim: int
) -> None:
    from transformers import AutoConfig

    folder = vision_folder(tmp_path / "copy", AutoConfig.for_model(kind, **_TINY))
    by_itself = load_encoder(str(folder), precision="float32")
    assert by_itself.info.pooling == pooling
    assert by_itself.info.dim == dim
    assert told() == (
        f"encoder {folder}: pooling {pooling}, as every {kind} has, whatever its size"
    )
    given = load_encoder(str(folder), "image", pooling=pooling, precision="float32")
    assert by_itself.info.key == given.info.key
    image = Image.new("RGB", (40, 30), "orange")
    torch.testing.assert_close(
        by_itself.encode(by_itself.prepare([image])), given.encode(given.prepare([image]))
    )


def test_towers_have_their_own(clip_folder: Path, told: Callable[[], str]) -> None:
    assert load_encoder(str(clip_folder), "text").info.pooling == "pooler"
    assert "pooling pooler, as each tower of a model with two has its own" in told()


def test_sizes_decide_where_pooling_depends_on_the_training(
    bert_folder: Path, tmp_path: Path, told: Callable[[], str]
) -> None:
    from transformers import AutoTokenizer, BertConfig, BertModel

    sizes = {"vocab_size": 60, "num_hidden_layers": 6, "num_attention_heads": 2}
    config = BertConfig(**sizes, hidden_size=384, intermediate_size=32, max_position_embeddings=16)
    BertModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert_folder).save_pretrained(tmp_path)
    assert load_encoder(str(tmp_path), "text").info.pooling == "mean"
    assert told() == (
        f"encoder {tmp_path}: pooling mean, a bert of 384 values and 6 layers, as "
        "sentence-transformers/all-MiniLM-L6-v2 is"
    )


def test_other_sizes_leave_it_open(bert_folder: Path) -> None:
    with pytest.raises(EncoderError, match=r"pooling must be given.*mean, first, last, pooler"):
        load_encoder(str(bert_folder), "text")


def test_what_is_asked_for_is_taken_and_not_told(
    clip_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="lateen")
    assert load_encoder(str(clip_folder), "image", pooling="cls").info.pooling == "cls"
    assert ": pooling " not in caplog.text


def test_a_pooling_module_decides(
    bert_folder: Path, tmp_path: Path, told: Callable[[], str]
) -> None:
    folder = shutil.copytree(bert_folder, tmp_path / "copy")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert load_encoder(str(folder), "text").info.pooling == "first"
    assert told() == f"encoder {folder}: pooling first, as its 1_Pooling/config.json says"


def test_a_sentence_folder_tells_its_pooling(
    sentence_folder: Path, told: Callable[[], str]
) -> None:
    assert load_encoder(str(sentence_folder)).info.pooling == "mean"
    assert told().endswith("pooling mean, as its own pooling module (modules.json) says")


def test_the_rows_by_name_and_by_architecture_agree() -> None:
    named = {"dinov2-small": "dinov2", "dino-vits16": "vit", "ijepa_vith14_1k": "ijepa"}
    for name, model_type in named.items():
        spec = next(spec for spec in SPECS.values() if spec.id.endswith(name))
        assert spec.pooling == FAMILIES[model_type].pooling
    for family in FAMILIES.values():
        assert set(family.sizes.values()) <= {spec.id for spec in SPECS.values()}


def test_a_copy_of_a_model_with_code_of_its_own_is_known(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nvembed"}))
    with pytest.raises(EncoderError, match=r"brings its own model code.*pass trust_remote_code"):
        load_encoder(str(tmp_path), "text")
