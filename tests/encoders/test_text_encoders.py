import json
from pathlib import Path

import pytest
import torch

from lateen.encoders import load_encoder
from lateen.encoders.resolve import Resolved
from lateen.encoders.specs import EncoderSpec, TextNeeds
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


def test_a_pooled_text_output_has_no_layer(bert_folder: Path) -> None:
    with pytest.raises(EncoderError, match="works on the last layer, not on layer 1"):
        features(bert_folder, pooling="pooler", layer=1)


def test_positions_that_begin_after_padding_leave_fewer_tokens(offset_folder: Path) -> None:
    encoder = load_encoder(str(offset_folder), "text", pooling="mean", precision="float32")
    [tokens] = encoder.prepare(["dog " * 50])
    assert encoder.info.preprocessing["max_tokens"] == len(tokens) == 8
    assert torch.isfinite(encoder.encode([tokens])).all()


def test_an_encoder_decoder_gives_its_encoder(t5_folder: Path) -> None:
    from transformers import AutoTokenizer, T5EncoderModel

    model = T5EncoderModel.from_pretrained(t5_folder).eval()
    inputs = AutoTokenizer.from_pretrained(t5_folder)("a dog runs", return_tensors="pt")
    with torch.no_grad():
        expected = model(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).last_hidden_state.mean(1)
    torch.testing.assert_close(features(t5_folder, ["a dog runs"], pooling="mean"), expected)


def test_a_checkpoint_with_the_encoder_alone_is_whole(t5_folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    before = features(t5_folder, ["a dog"], pooling="mean")
    path = t5_folder / "model.safetensors"
    kept = {k: v for k, v in load_file(path).items() if not k.startswith("decoder.")}
    save_file(kept, path, metadata={"format": "pt"})
    torch.testing.assert_close(features(t5_folder, ["a dog"], pooling="mean"), before)


def test_files_that_do_not_belong_together_are_explained(t5_folder: Path) -> None:
    from transformers import BertTokenizerFast

    words = [f"word{i}" for i in range(40)] + ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    (t5_folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(t5_folder / "vocab.txt")).save_pretrained(t5_folder)
    with pytest.raises(EncoderError, match="fails on a first input: index out of range") as caught:
        features(t5_folder, pooling="mean")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_half_precision_text_model_computes_as_asked(
    bert_folder: Path, tmp_path: Path, precision: str
) -> None:
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(bert_folder).half().save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(bert_folder).save_pretrained(tmp_path)
    encoder = load_encoder(str(tmp_path), "text", pooling="mean", precision=precision)  # type: ignore[arg-type]
    close = torch.cosine_similarity(
        encoder.encode(encoder.prepare(TEXTS)), features(bert_folder, pooling="mean")
    )
    assert close.min() > (0.999999 if precision == "float32" else 0.999)


@pytest.fixture
def own_code(sentence_folder: Path, monkeypatch: pytest.MonkeyPatch) -> EncoderSpec:
    """``theirs/own`` is found as a model like NV-Embed-v2, that must run in the library."""
    settings = json.loads((sentence_folder / "tokenizer_config.json").read_text())
    (sentence_folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "eos_token": "[SEP]"})
    )
    spec = EncoderSpec(
        "theirs/own", "text", trust_remote_code=True, max_tokens=8,
        needs=TextNeeds(append_eos=True, padding_side="left"),
    )  # fmt: skip
    monkeypatch.setattr(
        "lateen.encoders.request.resolve",
        lambda name, revision: Resolved(sentence_folder, "hub cache", "abc", spec),
    )
    return spec


def test_eos_and_padding_side_are_those_of_the_table(
    own_code: EncoderSpec, sentence_folder: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    encoder = load_encoder(own_code.id, "text", precision="float32", trust_remote_code=True)
    assert encoder.prepare(["a dog"]) == ["a dog[SEP]"]
    plain = library.SentenceTransformer(str(sentence_folder), device="cpu")
    plain.tokenizer.padding_side, plain.max_seq_length = "left", 8
    theirs = plain.encode([text + "[SEP]" for text in TEXTS], convert_to_tensor=True)
    others = plain.encode(TEXTS, convert_to_tensor=True)
    ours = encoder.encode(encoder.prepare(TEXTS))
    torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(ours, others)
    recorded = encoder.info.preprocessing
    assert (recorded["append_eos"], recorded["padding_side"]) == (True, "left")
    assert encoder._model.tokenizer.padding_side == "left"  # type: ignore[attr-defined]


def test_code_of_its_own_must_be_trusted(own_code: EncoderSpec) -> None:
    with pytest.raises(EncoderError, match="brings its own model code"):
        load_encoder(own_code.id, "text")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_half_precision_model_in_the_library_computes_as_asked(
    own_code: EncoderSpec, sentence_folder: Path, precision: str
) -> None:
    pytest.importorskip("sentence_transformers")
    from transformers import AutoModel

    exact = load_encoder(own_code.id, "text", precision="float32", trust_remote_code=True)
    expected = exact.encode(exact.prepare(TEXTS))
    AutoModel.from_pretrained(sentence_folder).half().save_pretrained(sentence_folder)
    half = load_encoder(own_code.id, "text", precision=precision, trust_remote_code=True)  # type: ignore[arg-type]
    close = torch.cosine_similarity(half.encode(half.prepare(TEXTS)), expected)
    assert close.min() > (0.999999 if precision == "float32" else 0.999)
