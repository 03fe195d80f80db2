"""What every test gets: no network, a cache of its own, tiny encoders in the real format."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lateen.progress import log

os.environ["HF_HUB_OFFLINE"] = "1"

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATEEN_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """What a command says, and how much, is no matter of the tests after it."""
    level, propagate, handlers = log.level, log.propagate, log.handlers[:]
    yield
    log.setLevel(level)
    log.propagate, log.handlers[:] = propagate, handlers


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real photographs and encoders, where there is one."""
    folder = Path(os.environ.get("LATEEN_REAL", ROOT.parent / "shared" / "real"))
    if not folder.is_dir():
        pytest.skip("no real data: set LATEEN_REAL to its folder")
    return folder


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., Path]:
    """Write a small random picture: ``draw("a.png", seed=1)``."""

    def write(name: str, seed: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return write


@pytest.fixture(scope="session")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random ViT with a trained-looking pooler, saved as the hub does."""
    import torch
    from transformers import ViTConfig, ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("vit")
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8,
    )  # fmt: skip
    ViTModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def mae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random masked autoencoder."""
    import torch
    from transformers import ViTMAEConfig, ViTMAEModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("mae")
    torch.manual_seed(0)
    config = ViTMAEConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=32, patch_size=8,
    )  # fmt: skip
    ViTMAEModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def resnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random ResNet: a map of 4 × 4 from 32 pixels."""
    import torch
    from transformers import ResNetConfig, ResNetModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("resnet")
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    ResNetModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BERT with a word-piece tokenizer, saved as the hub does."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "dog", "cat", "runs", "red",
             "blue", "on", "beach", "grass", "big", "small", "number", "##s",
             *map(str, range(10)), *[f"##{i}" for i in range(10)]]  # fmt: skip
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def clip_folder(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP, saved as the hub does."""
    import torch
    from transformers import AutoTokenizer, CLIPConfig, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32,
                     "num_hidden_layers": 2, "num_attention_heads": 2,
                     "max_position_embeddings": 16, "eos_token_id": 3, "bos_token_id": 2,
                     "pad_token_id": 0},
        vision_config={"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2,
                       "num_attention_heads": 2, "image_size": 32, "patch_size": 16},
        projection_dim=8,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert_folder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def siglip_folder(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random SigLIP, saved as the hub does."""
    import torch
    from transformers import AutoTokenizer, SiglipConfig, SiglipModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    folder = tmp_path_factory.mktemp("siglip")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2}  # fmt: skip
    config = SiglipConfig(
        text_config={**sizes, "vocab_size": 60, "max_position_embeddings": 8},
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
    )
    SiglipModel(config).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    AutoTokenizer.from_pretrained(bert_folder).save_pretrained(folder)
    return folder


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """A folder with 24 pictures and a caption file; see ``toys.album``."""
    import toys

    return toys.album(tmp_path / "album")
