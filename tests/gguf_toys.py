"""Tiny language models in GGUF files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


def write_gguf(
    path: Path, *, architecture: str = "llama", seed: int = 0, whole: bool = True
) -> Path:
    """A random Llama of two layers of 32 values with a token per byte, as llama.cpp stores one."""
    gguf = pytest.importorskip("gguf")
    from tokenizers import pre_tokenizers

    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), '!"', "<s>", "</s>"]
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(48)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(letters))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(letters)
    writer.add_token_types([1] * (len(letters) - 2) + [3, 3])
    writer.add_token_merges(['! "'])
    writer.add_bos_token_id(len(letters) - 2)
    writer.add_eos_token_id(len(letters) - 1)
    draw = torch.Generator().manual_seed(seed)

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(f"{name}.weight", torch.randn(*shape, generator=draw).numpy() * 0.3)

    add("token_embd", len(letters), 32)
    for block in range(2 if whole else 1):
        for name, rows, columns in (
            ("attn_q", 32, 32), ("attn_k", 16, 32), ("attn_v", 16, 32), ("attn_output", 32, 32),
            ("ffn_gate", 48, 32), ("ffn_up", 48, 32), ("ffn_down", 32, 48),
        ):  # fmt: skip
            add(f"blk.{block}.{name}", rows, columns)
        add(f"blk.{block}.attn_norm", 32)
        add(f"blk.{block}.ffn_norm", 32)
    add("output_norm", 32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
