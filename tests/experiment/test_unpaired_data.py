"""Images without captions and texts without images: from stores and from a recipe, and what is
refused of them."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from toys import COLOURS
from toys import album as write_album

from lateen.assessment.recipe import ProbeSection
from lateen.errors import DataError, LateenError, PairingError, RecipeError, UsageError
from lateen.experiment import run
from lateen.experiment.preflight import check_run
from lateen.experiment.rungs import Ladder, check_ladder
from lateen.experiment.training import train
from lateen.features import Description, Pairs, Store, StoreWriter, encode, pair
from lateen.model import AlignedModel

TOY: dict[str, Any] = {
    "vision": {"encoder": "toys:colour_encoder", "dtype": "float32"},
    "text": {"encoder": "toys:word_encoder"},
    "head": {"dim": 4, "dropout": 0.0},
}
QUICK: dict[str, Any] = {"dim": 3, "epochs": 2, "batch": 8}


def write_store(
    folder: Path, modality: Any, ids: list[str], *, encoder: str = "test", seed: int = 0
) -> Store:
    column = "caption" if modality == "text" else None
    key = encoder.rjust(64, "0")
    description = Description(modality, 3, {"id": encoder}, key, "t", "t", column, "float32")
    writer = StoreWriter(folder, description)
    features = torch.randn(len(ids), 3, generator=torch.Generator().manual_seed(seed))
    writer.write(features, ids, [], len(ids))
    writer.finish(allow_empty=True)
    return Store.open(folder)


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix} in the garden {i:02d}" for i in range(count)]


@pytest.fixture
def pairs(tmp_path: Path) -> Pairs:
    stores = (write_store(tmp_path / m, m, names("cat", 20)) for m in ("image", "text"))
    return pair(*stores)


def test_unpaired_stores_are_trained_on_and_recorded(pairs: Pairs, tmp_path: Path) -> None:
    images = write_store(tmp_path / "more-image", "image", names("dog", 9), seed=1)
    texts = write_store(tmp_path / "more-text", "text", names("owl", 9), seed=2)
    named = {"unpaired": {"images": str(images.path), "texts": str(texts.path), "batch": 5}}
    model = train(pairs, holdout=0.2, **QUICK, **named)
    assert model.trained_on is not None
    record = model.trained_on
    assert record.groups["train"].count == 16 + 9
    assert record.find("train", list(images.ids), np.zeros(9, np.uint64)).by_id.all()
    assert model.config.training["unpaired images"] == 9
    plain = train(pairs, holdout=0.2, **QUICK)
    assert "unpaired images" not in plain.config.training
    assert not torch.equal(*(m.heads.vision.network.weight for m in (model, plain)))
    by_key = {"train.unpaired.images": str(images.path), "unpaired.batch": 5,
              "unpaired.texts": str(texts.path)}  # fmt: skip
    same = train(pairs, holdout=0.2, **QUICK, **by_key)
    assert torch.equal(*(m.heads.vision.network.weight for m in (model, same)))


def test_a_key_inside_a_section_is_given_once(pairs: Pairs) -> None:
    with pytest.raises(UsageError, match=r"train\.unpaired\.weight is given twice"):
        train(pairs, unpaired={"weight": 1.0}, **{"train.unpaired.weight": 2.0})
    with pytest.raises(RecipeError, match=r"'train\.unpaired\.wieght'"):
        train(pairs, **{"unpaired.wieght": 2.0})


def test_what_is_of_the_pairs_held_out_is_left_out_and_said(
    pairs: Pairs, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    everything = write_store(tmp_path / "all", "image", names("cat", 20) + names("dog", 9), seed=1)
    with caplog.at_level(logging.INFO):
        model = train(pairs, holdout=0.2, **QUICK, unpaired={"images": str(everything.path)})
    assert "4 of the 29 unpaired images are of pairs that are held out" in caplog.text
    assert "the pairs' own captions stand for unpaired texts" in caplog.text
    assert model.trained_on is not None
    assert model.trained_on.groups["train"].count == 16 + 9


@pytest.mark.parametrize("side", ["image", "text"])
def test_what_is_of_a_validation_split_is_refused(pairs: Pairs, tmp_path: Path, side: str) -> None:
    held = pair(*(write_store(tmp_path / f"v{m}", m, names("fox", 5)) for m in ("image", "text")))
    more = write_store(tmp_path / "m", side, names("dog", 3) + names("fox", 2), seed=3)
    with pytest.raises(DataError, match=f"2 of the 5 {side}s in .* are of the validation split"):
        train(pairs, validation=held, **QUICK, unpaired={f"{side}s": str(more.path)})


def test_an_id_that_anyones_images_have_proves_nothing_but_with_the_same_features(
    pairs: Pairs, tmp_path: Path
) -> None:
    numbers = [str(i) for i in range(5)]
    held = pair(*(write_store(tmp_path / f"v{m}", m, numbers) for m in ("image", "text")))
    others = write_store(tmp_path / "others", "image", numbers, seed=3)
    train(pairs, validation=held, **QUICK, unpaired={"images": str(others.path)})
    copies = write_store(tmp_path / "copies", "image", numbers)
    with pytest.raises(DataError, match="5 of the 5 images"):
        train(pairs, validation=held, **QUICK, unpaired={"images": str(copies.path)})


@pytest.mark.parametrize(
    ("side", "modality", "ids", "encoder", "error", "message"),
    [
        ("images", "image", ["a"], "other", PairingError, "features of other, the pairs' of test"),
        ("images", "text", ["a"], "test", PairingError, "text features where .*images belong"),
        ("texts", "text", [], "test", DataError, "is empty"),
        ("images", "image", names("cat", 20), "test", DataError, "no images beside those"),
    ],
)
def test_stores_that_do_not_fit_are_refused(
    pairs: Pairs, tmp_path: Path, side: str, modality: str, ids: list[str], encoder: str,
    error: type[LateenError], message: str,
) -> None:  # fmt: skip
    store = write_store(tmp_path / "odd", modality, ids, encoder=encoder)
    if "beside" in message:
        pairs, held = pairs.take(np.arange(10)), pairs
        with pytest.raises(DataError, match="of the validation split"):
            train(pairs, validation=held, **QUICK, unpaired={side: str(store.path)})
        return
    with pytest.raises(error, match=message):
        train(pairs, holdout=0.2, **QUICK, unpaired={side: str(store.path)})


def recipe(root: Path, **unpaired: Any) -> dict[str, Any]:
    data = {"root": str(root), "train": "train.jsonl", "holdout": 0.25}
    settings = {"batch": 6, "epochs": 20, "lr": 0.01, "unpaired": unpaired}
    return {**TOY, "data": data, "train": settings}


@pytest.fixture
def two_albums(tmp_path: Path) -> Path:
    """An album; beside it photographs of another, and a table of captions without images."""
    root, other = write_album(tmp_path / "one"), write_album(tmp_path / "two", 30)
    (root / "more").mkdir()
    for i in range(24, 30):
        shutil.copy(other / "images" / f"{i:03d}.png", root / "more")
    captions = [f"a {colour} thing" for colour in COLOURS]
    lines = [json.dumps({"image": f"gone-{c}.png", "caption": c}) for c in captions]
    (root / "more.jsonl").write_text("\n".join(lines) + "\n")
    return root


def test_a_run_encodes_unpaired_folders_and_tables_and_goes_by_their_content(
    two_albums: Path,
) -> None:
    values = recipe(two_albums, images="more", texts="more.jsonl", batch=4)
    run(values, two_albums / "run")
    stores = sorted(path.name[:13] for path in (two_albums / "run" / "stores").iterdir())
    assert [name for name in stores if name.startswith("unp")] == ["unpaired-text", "unpaired-visi"]
    [trained] = (two_albums / "run" / "train").iterdir()
    before = (trained / "checkpoint.safetensors").stat().st_mtime_ns
    model = AlignedModel.from_pretrained(two_albums / "run" / "model")
    assert model.trained_on is not None
    assert model.trained_on.groups["train"].count == 18 + 6
    # A store of the same features is the same data, wherever it is.
    store = encode(two_albums / "more", "toys:colour_encoder", two_albums / "s", dtype="float32")
    again = recipe(two_albums, images=str(store.path), texts="more.jsonl", batch=4)
    run(again, two_albums / "run")
    assert (trained / "checkpoint.safetensors").stat().st_mtime_ns == before
    # Other images are another training.
    (two_albums / "more" / "029.png").unlink()
    run(values, two_albums / "run")
    assert len(list((two_albums / "run" / "train").iterdir())) == 2


def test_a_run_without_unpaired_images_goes_on_as_before(two_albums: Path) -> None:
    values = recipe(two_albums)
    del values["train"]["unpaired"]
    run(values, two_albums / "run")
    assert "unpaired:" not in (two_albums / "run" / "recipe.yaml").read_text()


@pytest.mark.parametrize(
    ("unpaired", "message"),
    [
        ({"images": "mre"}, "Did you mean .*more"),
        ({"texts": "images"}, "has no captions"),
        ({"weight": 2.0}, "names images, texts or both"),
        ({"images": "more", "weight": 0}, "greater than 0"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_encoded(
    two_albums: Path, unpaired: dict[str, Any], message: str
) -> None:
    with pytest.raises(LateenError, match=message):
        check_run(recipe(two_albums, **unpaired), two_albums / "run")
    assert not (two_albums / "run" / "stores").exists()


def test_a_ladder_and_a_probe_train_on_pairs_alone(two_albums: Path) -> None:
    values = recipe(two_albums)
    del values["train"]["unpaired"]
    rungs = [{"name": "a"}, {"name": "b", "set": {"train.unpaired": {"images": "more"}}}]
    ladder = Ladder.build({"base": values, "rungs": rungs})
    with pytest.raises(RecipeError, match="a ladder trains on pairs alone"):
        check_ladder(ladder, two_albums / "ladder")
    with pytest.raises(ValidationError, match="a probe learns from the pairs alone"):
        ProbeSection.model_validate({"train": {"unpaired": {"images": "more"}}})


def test_images_of_the_test_split_are_refused(two_albums: Path) -> None:
    values = recipe(two_albums, images="images")
    values["data"]["test"] = "train.jsonl"
    with pytest.raises(DataError, match=r"24 of the 24 images .* are of the test split"):
        run(values, two_albums / "run")


def test_a_text_encoder_that_is_trained_or_no_training_is_refused(two_albums: Path) -> None:
    values = recipe(two_albums, images="more")
    with pytest.raises(RecipeError, match=r"train\.unpaired needs features of both encoders"):
        check_run({**values, "text": {**TOY["text"], "train": True}}, two_albums / "run")
    with pytest.raises(RecipeError, match="0 epochs train nothing"):
        check_run({**values, "train": {**values["train"], "epochs": 0}}, two_albums / "run")
