import json
import shutil
from pathlib import Path

import pytest
import torch

from lateen.encoders import load_encoder
from lateen.errors import EncoderError

TEXTS = ["a dog", "the big red cat runs on the beach", "a", "grass"]


def plain_tokens(folder: Path, text: str) -> torch.Tensor:
    """The plain twin: one text at a time, no padding, transformers alone."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    inputs = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).last_hidden_state[0]


def features(folder: Path, texts: list[str] = TEXTS, **options: object) -> torch.Tensor:
    encoder = load_encoder(str(folder), "text", precision="float32", **options)  # type: ignore[arg-type]
    return encoder.encode(encoder.prepare(texts))


@pytest.fixture
def sentence_folder(bert_folder: Path, tmp_path: Path) -> Path:
    """The tiny BERT as sentence-transformers lays it out: mean pooling, normalised, 16 tokens."""
    folder = tmp_path / "sentence"
    shutil.copytree(bert_folder, folder)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')
    for path, _ in kinds[1:]:
        (folder / path).mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize("pooling", ["mean", "first", "last"])
def test_padding_changes_nothing(bert_folder: Path, pooling: str) -> None:
    pick = {"mean": lambda t: t.mean(0), "first": lambda t: t[0], "last": lambda t: t[-1]}[pooling]
    expected = torch.stack([pick(plain_tokens(bert_folder, text)) for text in TEXTS])
    torch.testing.assert_close(features(bert_folder, pooling=pooling), expected)


def test_long_texts_are_cut_and_keep_their_end_token(bert_folder: Path) -> None:
    encoder = load_encoder(str(bert_folder), "text", pooling="mean", max_tokens=6)
    [tokens] = encoder.prepare(["dog " * 1000])
    assert len(tokens) == 6
    assert tokens[-1] == 3  # [SEP]
    assert torch.isfinite(encoder.encode([tokens])).all()


def test_a_prompt_stands_before_every_text(bert_folder: Path) -> None:
    torch.testing.assert_close(
        features(bert_folder, ["dog"], pooling="mean", prompt="a big "),
        features(bert_folder, ["a big dog"], pooling="mean"),
    )


def test_a_sentence_folder_brings_its_own_pooling_and_limit(sentence_folder: Path) -> None:
    encoder = load_encoder(str(sentence_folder), precision="float32")
    assert encoder.info.pooling == "mean"
    assert encoder.info.preprocessing["max_tokens"] == 16
    mean = torch.stack([plain_tokens(sentence_folder, text).mean(0) for text in TEXTS])
    expected = torch.nn.functional.normalize(mean, dim=-1)
    torch.testing.assert_close(encoder.encode(encoder.prepare(TEXTS)), expected)


def test_our_sentence_path_equals_the_library(sentence_folder: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    theirs = library.SentenceTransformer(str(sentence_folder), device="cpu").encode(TEXTS)
    torch.testing.assert_close(features(sentence_folder), torch.from_numpy(theirs))


def test_a_model_that_is_more_than_pooling_runs_in_the_library(sentence_folder: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    modules = json.loads((sentence_folder / "modules.json").read_text())
    modules[1]["type"] = "sentence_transformers.models.Pooling"
    pooling = {
        "word_embedding_dimension": 16, "pooling_mode_mean_tokens": True,
        "pooling_mode_max_tokens": True,
    }  # fmt: skip
    (sentence_folder / "modules.json").write_text(json.dumps(modules))
    (sentence_folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    encoder = load_encoder(str(sentence_folder), precision="float32")
    assert encoder.info.pooling == "own"
    assert encoder.info.dim == 32
    theirs = library.SentenceTransformer(str(sentence_folder), device="cpu").encode(TEXTS)
    torch.testing.assert_close(encoder.encode(encoder.prepare(TEXTS)), torch.from_numpy(theirs))
    with pytest.raises(EncoderError, match="pooling of its own"):
        load_encoder(str(sentence_folder), layer=1)


def test_a_damaged_sentence_folder_is_explained(sentence_folder: Path) -> None:
    (sentence_folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(EncoderError, match="not a whole sentence-transformers model"):
        load_encoder(str(sentence_folder))


def test_wrong_pooling_and_layer_are_explained(bert_folder: Path) -> None:
    with pytest.raises(EncoderError, match=r"unknown pooling 'cls'.*mean, first, last"):
        load_encoder(str(bert_folder), "text", pooling="cls")
    with pytest.raises(EncoderError, match=r"layers 0 .*to 2, not 7"):
        load_encoder(str(bert_folder), "text", pooling="mean", layer=7)
    with pytest.raises(EncoderError, match="encodes texts, not images"):
        load_encoder(str(bert_folder), "image", pooling="mean")
