"""A language model in a GGUF file is a text encoder."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_toys import write_gguf

from lateen.encoders import EncoderOptions, load_encoder, load_towers, load_views
from lateen.encoders.config import TextSection
from lateen.encoders.resolve import check_language_model, files_are_here
from lateen.encoders.text import trainable
from lateen.errors import EncoderError, MissingExtraError
from lateen.features import encode
from lateen.mllm.language import load_language_model
from lateen.model.saving import copy_encoder

TEXTS = ["a dog", "the big red cat runs on the beach", "a", "grass"]
ANY = Any


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def plain(file: Path) -> tuple[ANY, ANY]:
    """The plain twin: transformers alone."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModel.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    return model.eval(), tokenizer


def loaded(path: Path, pooling: str, **options: ANY) -> ANY:
    return load_encoder(str(path), "text", pooling=pooling, precision="float32", **options)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("layer", [None, 0, 1, 2])
def test_features_are_those_of_each_text_alone(
    gguf_file: Path, pooling: str, layer: int | None
) -> None:
    """Neither padding nor the other texts of a batch are seen; the last token is the text's own."""
    model, tokenizer = plain(gguf_file)
    expected = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            states = model(ids, output_hidden_states=True).hidden_states
        tokens = states[2 if layer is None else layer][0]
        expected.append(tokens[-1] if pooling == "last" else tokens.mean(0))
    encoder = loaded(gguf_file, pooling, layer=layer)
    features = encoder.encode(encoder.prepare(TEXTS))
    torch.testing.assert_close(features, torch.stack(expected), atol=1e-5, rtol=1e-4)


def test_a_token_sees_nothing_of_what_follows_it(gguf_file: Path) -> None:
    network = loaded(gguf_file, "mean").network.model
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 9, 9]])
    for mask in (None, torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])):
        with torch.inference_mode():
            one, other = network(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(one[:2], other[:2])
        assert not torch.allclose(one[2], other[2])


def test_all_layers_come_from_one_pass(gguf_file: Path) -> None:
    options = EncoderOptions(precision="float32")
    asked = [(pooling, layer) for pooling in ("mean", "last") for layer in (0, 1, 2)]
    views = load_views(str(gguf_file), "text", asked, options)
    passes = []
    views[0].network.model.register_forward_hook(lambda *_: passes.append(1))  # type: ignore[attr-defined]
    prepared = views[0].prepare(TEXTS)
    together = views[0].encode_views(prepared, views)  # type: ignore[attr-defined]
    assert len(passes) == 1
    for (pooling, layer), view, features in zip(asked, views, together, strict=True):
        alone = loaded(gguf_file, pooling, layer=layer)
        assert view.info.key == alone.info.key
        torch.testing.assert_close(features, alone.encode(prepared))


def test_a_file_is_known_by_its_content(gguf_file: Path, tmp_path: Path) -> None:
    other = shutil.copy(gguf_file, tmp_path / "renamed.GGUF")
    first, copied = loaded(gguf_file, "last").info, loaded(Path(other), "last").info
    assert first.key == copied.key
    assert first.load["name"] == str(gguf_file)
    assert loaded(tmp_path, "last").info.load["name"] == str(other)  # a folder with one
    assert loaded(write_gguf(tmp_path / "other.gguf", seed=1), "last").info.key != first.key


def test_what_lies_beside_a_file_is_not_read(gguf_file: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(gguf_file, tmp_path))
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json", "modules.json"):
        (tmp_path / name).write_text('{"model_type": "bert", "tokenizer_class": "BertTokenizer"}')
    encoder, alone = loaded(file, "last"), loaded(gguf_file, "last")
    assert encoder.prepare(TEXTS) == alone.prepare(TEXTS)
    assert encoder.info.key == alone.info.key


def test_an_untrained_one_is_a_baseline(gguf_file: Path) -> None:
    one, again = (loaded(gguf_file, "mean", untrained=True) for _ in range(2))
    assert one.info.weights == again.info.weights != loaded(gguf_file, "mean").info.weights
    assert one.prepare(TEXTS) == loaded(gguf_file, "mean").prepare(TEXTS)


def test_an_empty_text_has_the_token_that_begins_all(gguf_file: Path) -> None:
    encoder = loaded(gguf_file, "last")
    assert encoder.prepare([""]) == [[encoder.tokenizer.bos_token_id]]
    assert torch.isfinite(encoder.encode(encoder.prepare(["", "a dog"]))).all()


def test_a_prompt_may_go_on_after_the_text(gguf_file: Path) -> None:
    encoder = loaded(gguf_file, "last", prompt='It shows "{}" in a word:"', max_tokens=40)
    [short, cut] = encoder.prepare(["a dog", "a dog " * 30])
    decode = encoder.tokenizer.decode
    assert decode(short) == 'It shows "a dog" in a word:"'
    assert decode(cut).startswith('It shows "a dog a')
    assert decode(cut).endswith('" in a word:"')
    assert len(cut) == 40
    bare = loaded(gguf_file, "last")
    assert encoder.info.key != bare.info.key
    torch.testing.assert_close(
        encoder.encode([short]), bare.encode(bare.prepare(['It shows "a dog" in a word:"']))
    )
    with pytest.raises(EncoderError, match=r"prompt has 23 tokens .* max_tokens is 10"):
        loaded(gguf_file, "last", prompt='It shows "{}" in a word:"', max_tokens=10)


def test_captions_become_a_store_that_is_left_as_it_is(gguf_file: Path, tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("image,caption\na.jpg,a dog\nb.jpg,a big cat\n")
    encoder = loaded(gguf_file, "last")
    store = encode(tmp_path / "c.csv", encoder, tmp_path / "store", texts_only=True)
    torch.testing.assert_close(
        store[:], encoder.encode(encoder.prepare(["a dog", "a big cat"])), atol=2e-3, rtol=2e-3
    )
    manifest = (tmp_path / "store" / "manifest.json").stat().st_mtime_ns
    encode(tmp_path / "c.csv", encoder, tmp_path / "store", texts_only=True)
    assert (tmp_path / "store" / "manifest.json").stat().st_mtime_ns == manifest


def test_a_file_is_found_below_the_data(gguf_file: Path) -> None:
    section = TextSection(encoder="tiny.gguf")
    assert section.found_below(gguf_file.parent) == str(gguf_file)
    assert section.found_below(Path("elsewhere")) == "tiny.gguf"
    assert files_are_here(str(gguf_file))


def test_a_copy_is_the_file_alone(gguf_file: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(gguf_file, tmp_path))
    (tmp_path / "notes.txt").write_text("mine")
    copy_encoder(file, tmp_path / "copy")
    assert [each.name for each in (tmp_path / "copy").iterdir()] == ["tiny.gguf"]
    copy_encoder(tmp_path / "copy", tmp_path / "again")
    assert loaded(tmp_path / "again", "last").info.key == loaded(gguf_file, "last").info.key


def test_what_it_cannot_do_is_said(gguf_file: Path) -> None:
    with pytest.raises(EncoderError, match=r"pooling must be given.*mean, first, last"):
        load_encoder(str(gguf_file))
    with pytest.raises(EncoderError, match="unknown pooling 'pooler'"):
        loaded(gguf_file, "pooler")
    with pytest.raises(EncoderError, match=r"layers 0 .*to 2, not 9"):
        loaded(gguf_file, "mean", layer=9)
    with pytest.raises(EncoderError, match="encodes texts, not images"):
        load_encoder(str(gguf_file), "image", pooling="mean")
    with pytest.raises(EncoderError):
        load_towers(str(gguf_file))
    with pytest.raises(EncoderError, match="cannot be trained: a GGUF file"):
        trainable(loaded(gguf_file, "mean"))


def test_an_architecture_that_transformers_lacks_is_said(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "odd.gguf", architecture="hovercraft")
    with pytest.raises(EncoderError, match=r"odd\.gguf cannot be loaded.*hovercraft"):
        loaded(file, "mean")


def test_a_file_without_all_weights_is_refused(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "part.gguf", whole=False)
    with pytest.raises(EncoderError, match=r"part\.gguf lacks \d+ weights"):
        loaded(file, "mean")


def test_damaged_files_are_said(gguf_file: Path, tmp_path: Path) -> None:
    whole = gguf_file.read_bytes()
    (tmp_path / "page.gguf").write_text("<html>not found</html>")
    (tmp_path / "empty.gguf").write_bytes(b"")
    for name in ("page", "empty"):
        for look in (files_are_here, check_language_model):
            with pytest.raises(EncoderError, match=f"{name}.gguf is damaged, or no GGUF file"):
                look(str(tmp_path / f"{name}.gguf"))
    for share in (0.02, 0.5, 0.99):
        (tmp_path / "cut.gguf").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(EncoderError, match=r"cut\.gguf cannot be loaded"):
            loaded(tmp_path / "cut.gguf", "mean")


def test_a_folder_with_two_files_wants_one_named(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    for look in (files_are_here, check_language_model):
        with pytest.raises(EncoderError, match=r"has 2 GGUF files \(a\.gguf, b\.gguf\).*Give"):
            look(str(tmp_path))
    with pytest.raises(EncoderError, match=r"no file .*c\.gguf"):
        files_are_here(str(tmp_path / "c.gguf"))


def test_without_its_reader_a_file_names_what_brings_it(
    gguf_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "gguf" else find(n))
    with pytest.raises(MissingExtraError, match=r"gguf.*lateen\[text\]"):
        files_are_here(str(gguf_file))
    with pytest.raises(MissingExtraError, match=r"gguf.*lateen\[text\]"):
        loaded(gguf_file, "mean")
    with pytest.raises(MissingExtraError, match=r"gguf.*lateen\[mllm\]"):
        check_language_model(gguf_file)


def test_a_language_model_of_lateens_mllm_is_read_by_the_same_code(
    gguf_file: Path, tmp_path: Path
) -> None:
    language = load_language_model(gguf_file)
    encoder = loaded(gguf_file, "last")
    ids = torch.tensor(encoder.prepare(["a dog"]))
    with torch.inference_mode():
        states = language.model.base_model(ids).last_hidden_state
    torch.testing.assert_close(states[:, -1], encoder.encode(ids.tolist()))
    with pytest.raises(EncoderError, match=r"lacks \d+ weights"):
        load_language_model(write_gguf(tmp_path / "part.gguf", whole=False))
