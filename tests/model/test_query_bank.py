"""A query bank: hubs stand further back, and nothing of another model or of the judged is used."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import toys
from commands import call, saved_model
from torch import Tensor

import lateen
from lateen.errors import ModelError, UsageError
from lateen.evaluation import retrieval_result
from lateen.experiment import Recipe
from lateen.features import Pairs, encode, pair
from lateen.indexing.embeddings import build_bank
from lateen.metrics import cross_ranks
from lateen.model import AlignedModel, open_model
from lateen.model.query_bank import QUERY_BANK, QueryBank, chosen_bank
from lateen.model.trained_on import ImageGroup

SETTINGS = {"head.dim": 4, "head.dropout": 0.0, "train.batch": 8, "train.epochs": 2}
NOBODY = ImageGroup.of([], np.zeros(0, np.uint64))


def pairs_of(root: Path, count: int = 24) -> Pairs:
    table = toys.album(root, count) / "train.jsonl"
    return pair(
        encode(table, toys.ColourEncoder(), root / "i"),
        encode(table, toys.WordEncoder(), root / "t"),
    )


def unit(count: int, dim: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=random), dim=-1)


def bank_of(images: Tensor, texts: Tensor, temperature: float = 0.1) -> QueryBank:
    return QueryBank(images.half(), texts.half(), temperature, {}, {}, NOBODY)


def test_hubness_is_the_softened_mean_similarity_to_the_known_queries() -> None:
    items, known = unit(5, 3, 0), unit(7, 3, 1)
    bank = bank_of(known, known, temperature=0.2)
    for item, hubness in zip(items, bank.image_hubness(items), strict=True):
        exponents = [math.exp(float(item @ other) / 0.2) for other in known.half().float()]
        assert hubness.item() == pytest.approx(0.2 * math.log(sum(exponents) / 7), abs=1e-5)


def test_images_are_measured_by_captions_and_texts_by_images() -> None:
    first, second = unit(6, 3, 0), unit(6, 3, 1)
    bank, swapped, items = bank_of(first, second), bank_of(second, first), unit(4, 3, 2)
    assert torch.equal(bank.image_hubness(items), swapped.text_hubness(items))
    assert not torch.allclose(bank.image_hubness(items), bank.text_hubness(items))


def test_inner_products_of_extended_embeddings_are_cosines_less_both_hubnesses() -> None:
    images, texts = unit(5, 3, 0), unit(4, 3, 1)
    bank = bank_of(unit(6, 3, 2), unit(9, 3, 3))
    product = bank.extend_images(images)[:] @ bank.extend_texts(texts)[:].T
    plain = images @ texts.T - bank.image_hubness(images)[:, None] - bank.text_hubness(texts)
    torch.testing.assert_close(product, plain)


def test_a_hub_stands_behind_the_right_image_with_a_bank_and_before_it_without() -> None:
    # Every caption points to its own image and, more so, to the hub, which is no one's.
    own, hub = torch.eye(5)[:4], torch.eye(5)[4]
    captions = F.normalize(0.9 * own + hub, dim=-1)
    images = torch.cat([own, hub[None]])
    owner = torch.tensor([0, 1, 2, 3, 4])
    texts = torch.cat([captions, hub[None]])
    plain, _ = cross_ranks(images, texts, owner)
    assert plain.tolist() == [2, 2, 2, 2, 1]
    bank = bank_of(images, F.normalize(captions + 0.1 * unit(4, 5, 0), dim=-1))
    ranks, _ = cross_ranks(bank.extend_images(images), bank.extend_texts(texts), owner)
    assert ranks[:4].tolist() == [1, 1, 1, 1]


def test_a_trained_model_carries_a_bank_of_its_training_pairs(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path)
    model = lateen.train(pairs, holdout=0.25, **SETTINGS)
    bank = model.query_bank
    assert bank is not None
    assert (len(bank.images), len(bank.texts)) == (18, 36)
    model.save_pretrained(tmp_path / "model")
    again = AlignedModel.from_pretrained(tmp_path / "model").query_bank
    assert again is not None
    assert again.key == bank.key
    assert again.temperature == bank.temperature
    assert again.source.count == bank.source.count <= 18
    held_out = pairs.holdout(0.25)[1]
    assert not bank.source.ids.has(
        ImageGroup.of(held_out.ids, NOBODY.images.values).ids.values
    ).any()
    model.save_pretrained(tmp_path / "model", query_bank=False)
    assert not (tmp_path / "model" / QUERY_BANK).exists()


def test_its_size_is_a_setting_and_a_part_of_no_training(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path)
    small = lateen.train(pairs, holdout=0.25, out=tmp_path / "run", **SETTINGS, size=5)
    none = lateen.train(pairs, holdout=0.25, out=tmp_path / "run", **SETTINGS, **{"bank.size": 0})
    assert small.query_bank is not None
    assert (len(small.query_bank.images), len(small.query_bank.texts)) == (5, 5)
    assert none.query_bank is None
    assert small.content_key == none.content_key  # the second was found done
    with pytest.raises(lateen.LateenError, match="a bank of one tells no hub from others"):
        Recipe.build({"bank": {"size": 1}})


def test_results_tell_both_and_compare_knows_the_second_too(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path)
    model = lateen.train(pairs, holdout=0.25, **SETTINGS)
    plain = retrieval_result(model, pairs)
    both = retrieval_result(model, pairs, bank=model.query_bank)
    assert "with_bank" not in plain
    assert both["text_to_image"] == plain["text_to_image"]
    beside = both["with_bank"]
    assert beside["bank"]["seen"] == model.query_bank.source.count
    low, high = both["intervals"]["with_bank.text_to_image.R@1"]
    assert low <= beside["text_to_image"]["R@1"] <= high


def test_judged_images_in_the_bank_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = pairs_of(tmp_path)
    model = lateen.train(pairs, holdout=0.25, **SETTINGS)
    with caplog.at_level(logging.WARNING):
        retrieval_result(model, pairs, bank=model.query_bank)
    assert "of these 24 images are in the query bank" in caplog.text


def test_a_bank_is_of_one_model(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path)
    first = lateen.train(pairs, holdout=0.25, **SETTINGS)
    second = lateen.train(pairs, holdout=0.25, **SETTINGS, seed=1)
    with pytest.raises(ModelError, match="embedded by another model"):
        second.query_bank = first.query_bank
    file = tmp_path / "bank.npz"
    first.query_bank.save(file)
    assert chosen_bank(first, file).key == first.query_bank.key
    with pytest.raises(ModelError, match="embedded by another model"):
        chosen_bank(second, file)
    assert chosen_bank(first, "none") is None
    second.query_bank = None
    with pytest.raises(ModelError, match="carries no query bank"):
        chosen_bank(second, "model")


@pytest.mark.parametrize("damage", ["cut", "text", "one", "absent"])
def test_a_damaged_bank_is_an_error_that_says_how_to_make_it_again(
    damage: str, tmp_path: Path
) -> None:
    model = lateen.train(pairs_of(tmp_path), holdout=0.25, **SETTINGS)
    file = tmp_path / "bank.npz"
    bank = model.query_bank
    if damage == "one":
        bank = replace(bank, images=bank.images[:1])
    bank.save(file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-50])
    elif damage == "text":
        file.write_text("no bank")
    elif damage == "absent":
        file.unlink()
    with pytest.raises(ModelError, match=r"there is no query bank|lateen bank MODEL"):
        QueryBank.load(file, model)


def test_a_model_without_one_gets_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    album = toys.album(tmp_path)
    folder = saved_model(tmp_path / "model")
    words = ("bank", folder, "--captions", album / "train.jsonl", "--images", album / "images")
    code, out, err = call(capsys, *words)
    assert code == 0, err
    assert "24 images and 48 captions" in out
    assert open_model(folder).query_bank is not None
    assert call(capsys, *words)[0] == 2  # there is one now
    with pytest.raises(UsageError, match="a query bank of 1 tells no hubs"):
        build_bank(folder, album / "train.jsonl", images=album / "images", size=1)


def test_searches_are_ordered_by_what_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    album = toys.album(tmp_path)
    folder = saved_model(tmp_path / "model")
    build_bank(folder, album / "train.jsonl", images=album / "images")
    [hits] = lateen.search(folder, "a red thing", album / "images", k=24)
    assert [hit.adjusted for hit in hits] == sorted((h.adjusted for h in hits), reverse=True)
    bank = open_model(folder).query_bank
    model = open_model(folder)
    image = model.encode_image(hits[3].path)
    score = float(image @ model.encode_text("a red thing").T)
    assert hits[3].score == pytest.approx(score, abs=2e-3)
    assert hits[3].adjusted == pytest.approx(score - float(bank.image_hubness(image)), abs=2e-3)
    [plain] = lateen.search(folder, "a red thing", album / "images", k=24, bank="none")
    assert all(hit.adjusted is None for hit in plain)
    code, out, _ = call(capsys, "search", folder, "a red thing", "--images", album / "images",
                        "--cut-off", 0)  # fmt: skip
    assert code == 0
    assert "adjusted" in out


def test_embeddings_carry_their_hubness_for_an_index(tmp_path: Path) -> None:
    album = toys.album(tmp_path)
    folder = saved_model(tmp_path / "model")
    build_bank(folder, album / "train.jsonl", images=album / "images")
    images = lateen.embed(folder, images=album / "images", bank="model")
    text = lateen.embed(folder, texts=["a red thing"], bank="model")
    [hits] = lateen.search(folder, "a red thing", album / "images", k=24)
    product = dict(zip(images.ids, images.values @ text.values[0], strict=True))
    off = float(open_model(folder).query_bank.text_hubness(torch.from_numpy(text.values[:, :-2])))
    for hit in hits:
        assert product[hit.id] == pytest.approx(hit.adjusted - off, abs=2e-3)
    with pytest.raises(UsageError, match="at unit length"):
        lateen.embed(folder, images=album / "images", bank="model", raw=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_another_number_format_is_no_other_model(dtype: torch.dtype, tmp_path: Path) -> None:
    model = lateen.train(pairs_of(tmp_path), holdout=0.25, **SETTINGS)
    model.save_pretrained(tmp_path / "model")
    cast = AlignedModel.from_pretrained(tmp_path / "model").to(dtype)
    cast.save_pretrained(tmp_path / "cast")
    again = AlignedModel.from_pretrained(tmp_path / "cast")
    assert again.query_bank is not None
    assert again.query_bank.key == model.query_bank.key


def test_another_scale_or_bias_is_no_other_model(tmp_path: Path) -> None:
    model = lateen.train(pairs_of(tmp_path), holdout=0.25, **SETTINGS)
    with torch.no_grad():
        model.logit_scale.add_(1)
        model.logit_bias.sub_(1)
    assert model.query_bank.fits(model)


@pytest.mark.parametrize("read", [True, False])
def test_a_bank_of_heads_that_were_changed_is_left_out_and_told(
    read: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lateen.train(pairs_of(tmp_path), holdout=0.25, **SETTINGS).save_pretrained(tmp_path / "model")
    model = AlignedModel.from_pretrained(tmp_path / "model")
    if read:
        assert model.query_bank is not None
    with torch.no_grad():
        model.heads.vision.network.weight.neg_()
    with caplog.at_level(logging.WARNING):
        model.save_pretrained(tmp_path / "changed")
    assert "the query bank is left out" in caplog.text
    assert AlignedModel.from_pretrained(tmp_path / "changed").query_bank is None


def test_without_the_record_of_training_the_bank_has_no_hashes_either(tmp_path: Path) -> None:
    model = lateen.train(pairs_of(tmp_path), holdout=0.25, **SETTINGS)
    model.save_pretrained(tmp_path / "model", trained_on=False)
    bank = AlignedModel.from_pretrained(tmp_path / "model").query_bank
    assert bank is not None
    assert len(bank.source.ids.values) == len(bank.source.images.values) == 0


def test_no_star_where_judged_images_are_in_the_bank(tmp_path: Path) -> None:
    from lateen.evaluation.task import is_in_bank

    pairs = pairs_of(tmp_path)
    model = lateen.train(pairs, holdout=0.25, **SETTINGS)
    result = retrieval_result(model, pairs, bank=model.query_bank)
    assert "judged images in the query bank" in (is_in_bank(result) or "")
    assert is_in_bank(retrieval_result(model, pairs)) is None


def test_rows_read_from_a_store_are_extended_as_those_in_memory(tmp_path: Path) -> None:
    images, known = unit(50, 3, 0), unit(7, 3, 1)
    whole = bank_of(known, known).extend_images(images)
    torch.testing.assert_close(whole[10:20], whole[:][10:20])
    assert whole[:].shape == (50, 5)
