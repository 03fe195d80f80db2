"""What each family's network was trained to get of a text, against transformers alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lateen.encoders import TokenEncoder, load_encoder
from lateen.encoders.resolve import Resolved
from lateen.encoders.specs import find_spec
from lateen.encoders.text import TextEncoder

WORDS = ["a", "the", "dog", "cat", "runs", "red", "big", "on", "beach"]
TEXTS = ["a dog", "the big red cat runs on the beach", "a", "the red dog runs"]
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip


def gemma(cls: str, *, eos: bool = True) -> Any:
    """A tokenizer of letters, as transformers' conversion of SigLIP 2 makes it."""
    from transformers import GemmaTokenizer
    from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer

    letters = [chr(code) for start in "aA" for code in range(ord(start), ord(start) + 26)]
    names = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *letters, "▁"]
    make = {"GemmaTokenizer": GemmaTokenizer, "Siglip2Tokenizer": Siglip2Tokenizer}[cls]
    return make(
        vocab={name: i for i, name in enumerate(names)}, merges=[], add_bos_token=False,
        add_eos_token=eos, padding_side="right", do_lower_case=True,
        model_input_names=["input_ids"],
    )  # fmt: skip


def siglip(folder: Path, kind: str, tokenizer: Any) -> Path:
    from transformers import AutoConfig, AutoModel
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    tokens = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0}
    text = {**SIZES, **tokens, "vocab_size": 60, "max_position_embeddings": 48}
    torch.manual_seed(0)
    vision = {**SIZES, "image_size": 32, "patch_size": 16, "num_patches": 4}
    config = AutoConfig.for_model(kind, text_config=text, vision_config=vision)
    SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def text_encoder(folder: Path, **options: Any) -> TextEncoder:
    encoder = load_encoder(str(folder), "text", precision="float32", **options)
    assert isinstance(encoder, TextEncoder)
    return encoder


def encoded(encoder: TextEncoder, texts: list[str]) -> torch.Tensor:
    return encoder.encode(encoder.prepare(texts))


def siglip_twin(folder: Path, texts: list[str]) -> torch.Tensor:
    """As SigLIP was trained: lower case, EOS, 48 tokens of which none is masked."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).text_model.eval()
    ids = gemma("Siglip2Tokenizer")(
        [text.lower() for text in texts], padding="max_length", max_length=48, truncation=True,
        return_tensors="pt",
    )["input_ids"]  # fmt: skip
    with torch.no_grad():
        return model(input_ids=ids).pooler_output


MIXED = ["A Dog", "the BIG red cat runs on the beach", "a", "X" * 200]


@pytest.mark.parametrize("kind", ["siglip", "siglip2"])
@pytest.mark.parametrize("tokenizer", ["GemmaTokenizer", "Siglip2Tokenizer"])
def test_siglip_reads_lower_case_at_its_full_length(
    tmp_path: Path, kind: str, tokenizer: str
) -> None:
    folder = siglip(tmp_path, kind, gemma(tokenizer))
    encoder = text_encoder(folder)
    expected = siglip_twin(folder, MIXED)
    torch.testing.assert_close(encoded(encoder, MIXED), expected)
    for text, row in zip(MIXED, expected, strict=True):
        torch.testing.assert_close(encoded(encoder, [text])[0], row)
    torch.testing.assert_close(encoded(encoder, ["a dog"])[0], expected[0])
    assert encoder.info.preprocessing["pad_to"] == 48


def test_only_what_the_tokenizer_does_not_do_is_in_the_key(tmp_path: Path) -> None:
    lowers = text_encoder(siglip(tmp_path / "a", "siglip", gemma("Siglip2Tokenizer")))
    assert set(lowers.info.preprocessing) == {
        "max_tokens", "prompt", "normalize", "pad_to", "tokenizer"
    }  # fmt: skip
    leaves = text_encoder(siglip(tmp_path / "b", "siglip", gemma("GemmaTokenizer", eos=False)))
    gaps = {name: leaves.info.preprocessing[name] for name in ("lower", "append_eos")}
    assert gaps == {"lower": True, "append_eos": True}
    assert lowers.prepare(MIXED) == leaves.prepare(MIXED)
    tokens = TokenEncoder(leaves).info.preprocessing
    assert (tokens["lower"], tokens["append_eos"]) == (True, True)
    assert set(TokenEncoder(lowers).info.preprocessing) == {"max_tokens", "prompt", "tokenizer"}


def word_tokenizer(folder: Path, pad: int) -> None:
    """Whole words, between [CLS] and [SEP]; ``pad`` is the id of padding."""
    from transformers import BertTokenizerFast

    names = ["[CLS]", "[SEP]", "[UNK]", "[MASK]", *WORDS]
    names.insert(pad, "[PAD]")
    (folder / "vocab.txt").write_text("\n".join(names))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)


def small(kind: str, folder: Path) -> Path:
    """A tiny model of a family with padding where the family has it."""
    from transformers import AutoConfig, AutoModel

    pad = 1 if kind in ("roberta", "xlm-roberta", "mpnet") else 0
    sizes: dict[str, Any] = {**SIZES, "max_position_embeddings": 20}
    sizes |= {"qwen2": {"num_key_value_heads": 1}}.get(kind, {})
    if kind == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 20}
    if kind == "t5":
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
                 "decoder_start_token_id": 0}  # fmt: skip
    tokens = {"pad_token_id": pad, "bos_token_id": 2, "eos_token_id": 3}
    config = AutoConfig.for_model(kind, vocab_size=14, **tokens, **sizes)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    word_tokenizer(folder, pad)
    return folder


def alone(folder: Path, text: str) -> torch.Tensor:
    """Token features of one text, without padding, by transformers."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if model.config.is_encoder_decoder else model
    ids = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(input_ids=ids).last_hidden_state[0]


PICK: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "mean": lambda tokens: tokens.mean(0),
    "first": lambda tokens: tokens[0],
    "last": lambda tokens: tokens[-1],
}


@pytest.mark.parametrize("pooling", list(PICK))
@pytest.mark.parametrize(
    "kind", ["bert", "distilbert", "roberta", "xlm-roberta", "mpnet", "t5", "gpt2", "qwen2"]
)
def test_no_feature_depends_on_the_other_texts(tmp_path: Path, kind: str, pooling: str) -> None:
    folder = small(kind, tmp_path)
    encoder = text_encoder(folder, pooling=pooling)
    expected = torch.stack([PICK[pooling](alone(folder, text)) for text in TEXTS])
    torch.testing.assert_close(encoded(encoder, TEXTS), expected)
    for text, row in zip(TEXTS, expected, strict=True):
        torch.testing.assert_close(encoded(encoder, [text])[0], row)


@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_the_last_token_of_a_causal_model_is_that_of_padding_on_the_left(
    tmp_path: Path, kind: str
) -> None:
    from transformers import AutoModel, AutoTokenizer

    folder = small(kind, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    mask = batch["attention_mask"]
    with torch.no_grad():
        left = (
            AutoModel.from_pretrained(folder)
            .eval()(
                input_ids=batch["input_ids"], attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp_min(0),
            )
            .last_hidden_state[:, -1]
        )  # fmt: skip
    torch.testing.assert_close(encoded(text_encoder(folder, pooling="last"), TEXTS), left)


@pytest.mark.parametrize("legacy", [True, False])
def test_clip_pools_at_the_end_of_the_text(tmp_path: Path, legacy: bool) -> None:
    """Old configs say that EOS is 2; the pooled token is then that of the highest id."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    ends = [f"{letter}</w>" for letter in "adogbigre"]
    names = list(dict.fromkeys([*"adogbigre", *ends, "<|startoftext|>", "<|endoftext|>"]))
    vocab = {name: i for i, name in enumerate(names)}
    end = len(vocab) - 1
    CLIPTokenizer(vocab=vocab, merges=[], model_max_length=12).save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = CLIPTextConfig(
        **SIZES, vocab_size=len(vocab), max_position_embeddings=12, bos_token_id=end - 1,
        eos_token_id=2 if legacy else end, pad_token_id=1 if legacy else end,
    )  # fmt: skip
    model = CLIPTextModel(config).eval()
    model.save_pretrained(tmp_path)
    texts = ["a dog", "a big red dog", "a", "big " * 40]
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    rows = [tokenizer(text, truncation=True)["input_ids"] for text in texts]
    assert all(row[-1] == end and end not in row[:-1] for row in rows)
    with torch.no_grad():
        expected = torch.cat(
            [model(input_ids=torch.tensor([row])).last_hidden_state[:, -1] for row in rows]
        )
    encoder = text_encoder(tmp_path)
    assert encoder.info.pooling == "pooler"
    torch.testing.assert_close(encoded(encoder, texts), expected)
    for text, row in zip(texts, expected, strict=True):
        torch.testing.assert_close(encoded(encoder, [text])[0], row)


@pytest.fixture
def e5(bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """``intfloat/e5-base-v2`` is found, as a BERT of words."""
    spec = find_spec("intfloat/e5-base-v2")
    monkeypatch.setattr(
        "lateen.encoders.request.resolve",
        lambda name, revision: Resolved(bert_folder, "hub cache", "abc", spec),
    )
    return "intfloat/e5-base-v2"


def test_e5_has_its_prompt_unless_another_is_given(e5: str) -> None:
    def features(text: str, prompt: str | None = None) -> torch.Tensor:
        encoder = load_encoder(e5, "text", pooling="mean", precision="float32", prompt=prompt)
        assert encoder.info.preprocessing["prompt"] == ("query: " if prompt is None else prompt)
        return encoder.encode(encoder.prepare([text]))

    torch.testing.assert_close(features("a dog"), features("query: a dog", ""))
    torch.testing.assert_close(features("a dog", "passage: the"), features("passage: thea dog", ""))
    assert not torch.allclose(features("a dog"), features("a dog", ""))


def prompts(folder: Path, default: str | None, *, pooled: bool = True) -> Path:
    values = {"prompts": {"query": "the red ", "document": "a "}, "default_prompt_name": default}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(values))
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({**json.loads(pooling.read_text()), "include_prompt": pooled}))
    return folder


@pytest.mark.parametrize("given", [None, "", "on a "])
@pytest.mark.parametrize("default", [None, "query"])
@pytest.mark.parametrize("pooled", [True, False])
def test_prompts_are_those_of_sentence_transformers(
    sentence_folder: Path, given: str | None, default: str | None, pooled: bool
) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = prompts(sentence_folder, default, pooled=pooled)
    theirs = library.SentenceTransformer(str(folder), device="cpu").encode(TEXTS, prompt=given)
    encoder = load_encoder(str(folder), precision="float32", prompt=given)
    ours = encoder.encode(encoder.prepare(TEXTS))
    torch.testing.assert_close(ours, torch.from_numpy(theirs))


def test_a_model_without_a_default_prompt_keeps_its_key(sentence_folder: Path) -> None:
    before = load_encoder(str(sentence_folder)).info.key
    assert load_encoder(str(prompts(sentence_folder, None))).info.key == before
    assert load_encoder(str(prompts(sentence_folder, "query"))).info.key != before
