from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark_toys import BlindEncoder, check_intervals, colour_model
from labelled_toys import benchmark_folder, class_folder

from lateen.errors import DataError, UsageError
from lateen.evaluation import evaluate
from lateen.evaluation.tasks.knn import evaluate_knn
from lateen.evaluation.tasks.linear_probe import evaluate_linear_probe
from lateen.features import Store
from lateen.metrics import knn_accuracy, linear_probe_folds
from lateen.model import AlignedModel

COLOURS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def model() -> AlignedModel:
    return colour_model()


def test_without_splits_each_image_is_found_by_the_others(
    model: AlignedModel, tmp_path: Path
) -> None:
    """One blue picture lies among the red: it is voted wrong, and with k = 1 nothing else is."""
    class_folder(tmp_path / "set", COLOURS, count=6)
    (tmp_path / "set/blue/5.png").rename(tmp_path / "set/red/blue.png")
    cache = tmp_path / "cache"
    result = evaluate(model, "knn", images=tmp_path / "set", k=(1, 3, 50), cache=cache)
    store = Store.open(cache / "classes")
    labels = torch.tensor([sorted(COLOURS).index(i.split("/")[0]) for i in store.ids])
    plain = knn_accuracy(store[:], labels, ks=(1, 3))
    assert result["encoder"] == {"1": plain[1], "3": plain[3]}
    assert result["encoder"]["3"] == pytest.approx(100 * 17 / 18)
    assert result["embedding"] == result["encoder"]  # identity heads
    assert result["k_left_out"] == [50]
    check_intervals(result)
    assert (result["train"], result["train_images"], result["images"]) == (None, None, 18)
    assert result["chance"] == pytest.approx(100 / 3)
    assert json.loads(json.dumps(result)) == result


def test_a_train_part_is_what_votes_and_what_is_learned_from(
    model: AlignedModel, tmp_path: Path
) -> None:
    train = [(colour, label) for label, colour in enumerate(COLOURS) for _ in range(5)]
    # Judged with labels moved by one: only what comes from the train part can be so wrong.
    test = [(colour, (label + 1) % 3) for label, colour in enumerate(COLOURS)]
    benchmark_folder(tmp_path, COLOURS, test=[*test, ("red", 0)], train=train)
    knn = evaluate_knn(model, data=tmp_path, k=(1, 5))
    assert knn["encoder"] == {"1": 25, "5": 25}
    assert (knn["train"], knn["train_images"], knn["images"]) == ("train", 15, 4)
    probe = evaluate_linear_probe(model, data=tmp_path)
    assert probe["encoder"]["accuracy"] == 25
    check_intervals({"task": "linear-probe", **probe})
    assert "folds" not in probe
    backwards = evaluate_knn(model, data=tmp_path, split="train", train="test", k=(1,))
    assert (backwards["train"], backwards["images"]) == ("test", 15)
    alone = evaluate_knn(model, data=tmp_path, split="train", k=(1,))
    assert (alone["train"], alone["encoder"]["1"]) == (None, 100)


def test_linear_probe_over_folds(model: AlignedModel, tmp_path: Path) -> None:
    class_folder(tmp_path / "set", ["red", "blue"], count=6)
    (tmp_path / "set/blue/5.png").rename(tmp_path / "set/red/blue.png")
    cache = tmp_path / "cache"
    result = evaluate(model, "linear-probe", images=tmp_path / "set", cache=cache, seed=3)
    store = Store.open(cache / "classes")
    labels = torch.tensor([["blue", "red"].index(i.split("/")[0]) for i in store.ids])
    plain = linear_probe_folds(store[:], labels, seed=3)
    assert result["encoder"]["accuracy"] == plain.accuracy
    assert result["encoder"]["c"] == plain.c
    assert result["encoder"]["validation"]["0.0001"] == plain.validation[1e-4]
    assert (result["folds"], result["seed"]) == (5, 3)
    assert json.loads(json.dumps(result)) == result


def test_features_can_be_chosen(model: AlignedModel, tmp_path: Path) -> None:
    class_folder(tmp_path, COLOURS)
    result = evaluate_knn(model, images=tmp_path, features="embedding", k=2)
    assert "encoder" not in result
    assert result["embedding"] == {"2": 100}
    with pytest.raises(UsageError, match=r"no features 'embeddings'.*Did you mean 'embedding'"):
        evaluate_knn(model, images=tmp_path, features="embeddings")  # type: ignore[arg-type]


def test_a_model_that_sees_nothing_scores_no_more_than_chance(tmp_path: Path) -> None:
    class_folder(tmp_path, COLOURS, count=5)
    blind = colour_model(BlindEncoder())
    assert evaluate_knn(blind, images=tmp_path, k=(4,))["encoder"]["4"] <= 100 / 3 + 1e-9
    found = evaluate_linear_probe(blind, images=tmp_path)["encoder"]["accuracy"]
    assert found <= 100 / 3 + 1e-9


def test_fewer_images_than_neighbours(
    model: AlignedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class_folder(tmp_path, ["red", "blue"], count=2)
    with pytest.raises(DataError, match=r"3 images can vote, fewer than the k of 10"):
        evaluate_knn(model, images=tmp_path)
    with caplog.at_level(logging.WARNING, logger="lateen"):
        evaluate_knn(model, images=tmp_path, k=(2, 10))
    assert "only k up to 2" in caplog.text


def test_a_class_with_too_few_images_is_named(model: AlignedModel, tmp_path: Path) -> None:
    class_folder(tmp_path / "one", ["red", "blue"], count=6)
    class_folder(tmp_path / "one", ["green"], count=4)
    with pytest.raises(DataError, match=r"'green' has 4 images to learn from, and 5 are needed"):
        evaluate_linear_probe(model, images=tmp_path / "one")
    test, train = [("red", 0), ("green", 1)], [("red", 0)] * 4 + [("blue", 2)] * 4
    benchmark_folder(tmp_path / "two", COLOURS, test=test, train=train)
    with pytest.raises(DataError, match=r"'green' has 0 images to learn from, and 1 are needed"):
        evaluate_knn(model, data=tmp_path / "two", k=(1,))
    with pytest.raises(DataError, match=r"'green' has 0 images to learn from, and 2 are needed"):
        evaluate_linear_probe(model, data=tmp_path / "two")


def test_parts_with_other_class_folders(model: AlignedModel, tmp_path: Path) -> None:
    class_folder(tmp_path / "train", COLOURS)
    class_folder(tmp_path / "test", ["green", "red"], count=1)
    result = evaluate_knn(model, images=tmp_path, k=(2,))
    assert result["encoder"] == {"2": 100}
    assert result["classes"] == 3
    class_folder(tmp_path / "test", ["white"], count=1)
    with pytest.raises(DataError, match="class 'white' of the split 'test' is not in the one"):
        evaluate_knn(model, images=tmp_path, k=(2,))


def test_a_missing_split_or_the_same_twice_is_an_error(model: AlignedModel, tmp_path: Path) -> None:
    benchmark_folder(tmp_path, COLOURS, test=[("red", 0), ("blue", 2)])
    with pytest.raises(UsageError, match=r"no split 'train'"):
        evaluate_knn(model, data=tmp_path, train="train", k=(1,))
    with pytest.raises(UsageError, match="to be judged and to be learned from"):
        evaluate_knn(model, data=tmp_path, train="test", k=(1,))
    with pytest.raises(UsageError, match="knn is given no images"):
        evaluate_knn(model)
    with pytest.raises(UsageError, match="linear-probe is given no images"):
        evaluate_linear_probe(model)


@pytest.mark.real
def test_real_photographs_are_told_apart_by_their_neighbours(real: Path, tmp_path: Path) -> None:
    """README of the real data: about 95 % among the ten nearest with this encoder."""
    from lateen.encoders import load_encoder
    from lateen.training.config import HeadSection
    from lateen.training.heads import AlignmentHeads

    vision = load_encoder(str(real / "encoders/mobilenet-v2"), pooling="pooler")
    head = HeadSection(name="identity", vision="identity", dim=vision.info.dim)
    info = vision.info.as_dict()
    heads = AlignmentHeads(head, vision.info.dim, vision.info.dim)
    model = AlignedModel.build(heads, info, info, head.model_dump())
    model.set_encoders(vision)
    some = tmp_path / "some"
    for folder in sorted((real / "imagenette-mini").iterdir())[:4]:
        (some / folder.name).mkdir(parents=True)
        for image in sorted(folder.iterdir())[:12]:
            (some / folder.name / image.name).symlink_to(image)
    result = evaluate_knn(model, images=some, set="imagenet", features="encoder", k=(10,))
    assert result["encoder"]["10"] > 85
    assert result["classes"] == 1000


@pytest.mark.parametrize("k", [(), 1.5, "3", [1.0]])
def test_numbers_of_neighbours_are_whole_and_at_least_one(
    model: AlignedModel, tmp_path: Path, k: Any
) -> None:
    with pytest.raises(UsageError, match="no numbers of neighbours"):
        evaluate_knn(model, images=class_folder(tmp_path, ["red", "blue"]), k=k)
