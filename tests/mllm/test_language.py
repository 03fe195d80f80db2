"""A language model gets a token for images."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from lateen.errors import EncoderError, MissingExtraError, ModelError
from lateen.mllm.language import load_language_model

from .conftest import byte_tokenizer, save_language_model


def test_rows_that_are_added_are_the_mean_of_the_others(llm_folder: Path) -> None:
    before = LlamaForCausalLM.from_pretrained(llm_folder)
    table = before.get_input_embeddings().weight
    language = load_language_model(llm_folder)
    grown = language.model.get_input_embeddings().weight
    assert len(table) == len(byte_tokenizer()) == language.image_token
    assert len(grown) == 320 == len(table) + language.added  # the next multiple of 64
    assert torch.equal(grown[: len(table)], table)
    torch.testing.assert_close(grown[len(table) :], table.mean(0).expand(language.added, -1))
    assert language.model.get_output_embeddings().weight is grown
    assert language.embedding_rms == pytest.approx(table.square().mean().sqrt().item())
    ids = torch.tensor([language.tokenizer("a dog")["input_ids"]])
    with torch.no_grad():
        logits = language.model(ids).logits
        torch.testing.assert_close(logits[..., : len(table)], before(ids).logits)
    assert logits.argmax(-1).max() < len(table)


def test_rows_to_spare_are_used(tmp_path: Path) -> None:
    language = load_language_model(save_language_model(tmp_path, spare=5))
    assert language.added == 0
    assert len(language.model.get_input_embeddings().weight) == len(byte_tokenizer()) + 5
    assert language.tokenizer("<image>")["input_ids"] == [language.image_token]
    assert (language.name, language.width) == (tmp_path.name, 32)


def test_a_tokenizer_that_has_the_token_keeps_it(tmp_path: Path) -> None:
    save_language_model(tmp_path, spare=5)
    tokenizer = load_language_model(tmp_path).tokenizer
    tokenizer.save_pretrained(tmp_path)
    again = load_language_model(tmp_path)
    assert len(again.tokenizer) == len(tokenizer)


def test_number_formats_are_those_of_the_files(tmp_path: Path, llm_folder: Path) -> None:
    shutil.copytree(llm_folder, tmp_path / "half")
    LlamaForCausalLM.from_pretrained(llm_folder, dtype=torch.bfloat16).save_pretrained(
        tmp_path / "half"
    )
    assert load_language_model(tmp_path / "half").model.dtype == torch.bfloat16
    wide = load_language_model(tmp_path / "half", dtype=torch.float32)
    assert wide.model.dtype == torch.float32


def test_what_is_no_language_model_is_said(tmp_path: Path, vit_folder: Path) -> None:
    for path, message in {
        tmp_path / "gone": "there is no language model", tmp_path: "has neither a config.json nor",
        Path(__file__): "is no GGUF file",
    }.items():  # fmt: skip
        with pytest.raises(ModelError, match=message):
            load_language_model(path)
    with pytest.raises(EncoderError, match="cannot be loaded"):
        load_language_model(vit_folder)


def test_a_quantised_folder_is_refused(tmp_path: Path, llm_folder: Path) -> None:
    shutil.copytree(llm_folder, tmp_path / "llm")
    config = json.loads((tmp_path / "llm" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (tmp_path / "llm" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="is quantised"):
        load_language_model(tmp_path / "llm")


@pytest.mark.skipif(
    importlib.util.find_spec("gguf") is not None, reason="gguf is installed, nothing is missing"
)
def test_a_gguf_file_needs_its_reader(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    for path in (tmp_path, tmp_path / "model.gguf"):
        with pytest.raises(MissingExtraError, match=r"gguf.*lateen\[mllm\]"):
            load_language_model(path)
