"""Text encoders that are trained themselves: which can be, and the token rows they train on."""

from pathlib import Path

import pytest
import torch
from toys import word_encoder

from lateen.encoders import TextEncoder, TokenEncoder, load_encoder, trainable
from lateen.errors import EncoderError


def load(folder: Path, **options: object) -> TextEncoder:
    return trainable(load_encoder(str(folder), "text", precision="float32", **options))  # type: ignore[arg-type]


def test_rows_are_the_encoders_tokens(bert_folder: Path) -> None:
    encoder = load(bert_folder, pooling="mean", max_tokens=6)
    rows = TokenEncoder(encoder)
    assert rows.prepare(["a dog", "the big red cat runs"]) == [[2, 5, 7, 3], [2, 6, 15, 10, 8, 3]]
    expected = torch.tensor([[2, 5, 7, 3, -1, -1], [2, 6, 15, 10, 8, 3]], dtype=torch.float32)
    assert torch.equal(rows.encode(rows.prepare(["a dog", "the big red cat runs"])), expected)


def test_what_changes_no_token_does_not_change_the_key(bert_folder: Path) -> None:
    def key(**options: object) -> str:
        return TokenEncoder(load(bert_folder, **{"pooling": "mean", **options})).info.key

    assert key() == key(pooling="first") == key(layer=1)
    assert key() != key(max_tokens=6)
    assert key() != key(prompt="a ")


def test_a_network_gives_what_its_encoder_gives_and_its_gradients(sentence_folder: Path) -> None:
    encoder = load(sentence_folder)
    ids, mask = encoder.pad_batch(encoder.prepare(["a dog", "the big red cat"]))
    features = encoder.network.requires_grad_()(ids, mask)
    torch.testing.assert_close(
        features, encoder.encode(encoder.prepare(["a dog", "the big red cat"]))
    )
    features[:, 0].sum().backward()
    touched = {n for n, p in encoder.network.named_parameters() if p.grad is not None}
    assert any("word_embeddings" in name for name in touched)
    assert not any("pooler" in name for name in touched)


def test_an_encoder_of_ones_own_cannot_be_trained() -> None:
    with pytest.raises(EncoderError, match=r"toys:word_encoder cannot be trained.*text\.train"):
        trainable(word_encoder())


def test_half_of_an_encoder_decoder_cannot_be_trained(t5_folder: Path) -> None:
    with pytest.raises(EncoderError, match="part of a larger model"):
        load(t5_folder, pooling="mean")


def test_a_model_inside_its_library_cannot_be_trained(sentence_folder: Path) -> None:
    pytest.importorskip("sentence_transformers")
    pooling = '{"word_embedding_dimension": 16, "pooling_mode_max_tokens": true}'
    (sentence_folder / "1_Pooling" / "config.json").write_text(pooling)
    with pytest.raises(EncoderError, match="does not run as a plain transformers model"):
        load(sentence_folder)


def test_a_tower_of_a_dual_model_cannot_be_trained(tmp_path: Path) -> None:
    from transformers import BertTokenizerFast, CLIPConfig, CLIPModel

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16}  # fmt: skip
    config = CLIPConfig(
        text_config={**size, "vocab_size": 9, "eos_token_id": 3, "max_position_embeddings": 8},
        vision_config={**size, "image_size": 16, "patch_size": 8}, projection_dim=4,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(tmp_path)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat", "runs"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="part of a larger model"):
        load(tmp_path)
