"""Tiny text models that count positions their own way, and a sentence-transformers folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch


def sentence_layout(source: Path, folder: Path, *kinds: tuple[str, str]) -> Path:
    """``source`` as sentence-transformers lays it out, with mean pooling and 16 tokens."""
    shutil.copytree(source, folder)
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), *kinds])
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    for module in modules[1:]:
        (folder / str(module["path"])).mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def save_text_model(folder: Path, model: Any) -> Path:
    """``model`` with a word-piece tokenizer whose padding is token 1, as RoBERTa's is."""
    from transformers import BertTokenizerFast

    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat", "runs"]
    (folder / "vocab.txt").write_text("\n".join(words))
    model.save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


_SIZES = {
    "vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "intermediate_size": 32, "max_position_embeddings": 10,
}  # fmt: skip


@pytest.fixture(params=["roberta", "mpnet"])
def offset_folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A tiny model whose ten positions begin at 2: it can take eight tokens."""
    from transformers import MPNetConfig, MPNetModel, RobertaConfig, RobertaModel

    torch.manual_seed(0)
    if request.param == "roberta":
        return save_text_model(tmp_path, RobertaModel(RobertaConfig(**_SIZES, pad_token_id=1)))
    return save_text_model(tmp_path, MPNetModel(MPNetConfig(**_SIZES, pad_token_id=1)))


@pytest.fixture
def t5_folder(tmp_path: Path) -> Path:
    """A tiny encoder-decoder."""
    from transformers import T5Config, T5Model

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=9, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=1,
        decoder_start_token_id=1,
    )  # fmt: skip
    return save_text_model(tmp_path, T5Model(config))


@pytest.fixture
def sentence_folder(bert_folder: Path, tmp_path: Path) -> Path:
    """The tiny BERT as sentence-transformers lays it out: mean pooling, normalised, 16 tokens."""
    return sentence_layout(bert_folder, tmp_path / "sentence", ("2_Normalize", "Normalize"))
