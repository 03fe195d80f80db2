"""A tiny language model with a byte tokenizer, and towers of each kind, as the hub saves them."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lateen.encoders import load_encoder
from lateen.mllm import MultimodalModel, build
from lateen.model import AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)


def picture(seed: int = 0, size: tuple[int, int] = (40, 30)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(values)


def byte_tokenizer(special: tuple[str, ...] = ("<|im_start|>", "<|im_end|>")) -> Any:
    """A token per byte, and these."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({each: i for i, each in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=special[-1], pad_token=special[-1],
        additional_special_tokens=list(special[:-1]),
    )  # fmt: skip


def save_language_model(
    folder: Path, *, spare: int = 0, chat: str | None = CHAT, talks: bool = False
) -> Path:
    """A random Llama of two layers, with rows of its embeddings to spare; one that talks says other
    bytes to other questions."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    tokenizer.chat_template = chat
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer) + spare, hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=256, tie_word_embeddings=not talks,
        initializer_range=0.5 if talks else 0.02,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_language_model(tmp_path_factory.mktemp("llm"))


@pytest.fixture(scope="session")
def aligned(
    vit_folder: Path, resnet_folder: Path, bert_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:  # fmt: skip
    """The folder of a model with a random GLU head on a pooling of the tiny ViT or ResNet."""
    made: dict[tuple[str, str], Path] = {}

    def model(pooling: str = "cls+mean", backbone: str = "vit") -> Path:
        if (pooling, backbone) not in made:
            source = {"vit": vit_folder, "resnet": resnet_folder}[backbone]
            vision = load_encoder(str(source), "image", pooling=pooling, precision="float32")
            text = load_encoder(str(bert_folder), "text", pooling="mean", precision="float32")
            torch.manual_seed(1)
            head = HeadSection(name="glu", dim=12, width=2, dropout=0.1)
            heads = AlignmentHeads(head, vision.info.dim, text.info.dim)
            with torch.no_grad():
                heads.vision.norm.weight.uniform_(0.5, 1.5)
                heads.vision.norm.bias.normal_()
            folder = tmp_path_factory.mktemp("aligned") / "model"
            AlignedModel.build(
                heads, vision.info.as_dict(), text.info.as_dict(), head.model_dump()
            ).save_pretrained(folder)
            made[pooling, backbone] = folder
        return made[pooling, backbone]

    return model


@pytest.fixture(scope="session")
def folder(
    aligned: Callable[..., Path], llm_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A multimodal model of the two."""
    where = tmp_path_factory.mktemp("mllm") / "mllm"
    build(aligned(), llm_folder, where)
    return where


@pytest.fixture(scope="module")
def mllm(folder: Path) -> MultimodalModel:
    return MultimodalModel.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="session")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pictures with two captions each."""
    folder = tmp_path_factory.mktemp("captioned")
    (folder / "images").mkdir()
    rows = []
    for at in range(40):
        picture(at).save(folder / "images" / f"{at}.png")
        rows += [(f"{at}.png", f"picture {at}"), (f"{at}.png", f"it is {at}")]
    with (folder / "captions.csv").open("w") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return folder / "captions.csv"
