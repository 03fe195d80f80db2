"""The record of what a model was trained on: exact, or a filter whose mistakes are as stated."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import toys

import lateen
from lateen.errors import ModelError
from lateen.features import Pairs, Store, encode, import_features, pair
from lateen.model import AlignedModel
from lateen.model.trained_on import (
    FALSE_POSITIVES,
    TRAINED_ON,
    HashSet,
    ImageGroup,
    TrainedOn,
    hash_ids,
    is_anyones,
)

SETTINGS = {"head.dim": 4, "head.dropout": 0.0, "train.batch": 4, "train.epochs": 1}


def pairs_of(root: Path, count: int = 12) -> Pairs:
    table = toys.album(root, count) / "train.jsonl"
    return pair(
        encode(table, toys.ColourEncoder(), root / "i"),
        encode(table, toys.WordEncoder(), root / "t"),
    )


def none_known(count: int) -> np.ndarray:
    return np.zeros(count, np.uint64)


def random_hashes(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 2**64, count, np.uint64)


def test_a_hash_is_blake2b_of_the_bytes() -> None:
    sample = "Straße/été 🐈.jpg"
    digest = hashlib.blake2b(sample.encode(), digest_size=8).digest()
    assert hash_ids([sample]).tolist() == [int.from_bytes(digest, "little")]
    assert len(set(hash_ids(["a", "b", "\udcff"]).tolist())) == 3  # half a character is no error
    assert hash_ids([]).shape == (0,)


def test_few_hashes_are_kept_as_they_are() -> None:
    inside, outside = random_hashes(5000, 0), random_hashes(5000, 1)
    known = HashSet.of(np.concatenate([inside, inside[:100]]))
    assert known.is_exact
    assert known.values.nbytes == 8 * 5000
    asked = np.concatenate([outside, inside])
    python = set(inside.tolist())
    assert known.has(asked).tolist() == [each in python for each in asked.tolist()]
    assert not HashSet.of(random_hashes(0, 0)).has(outside).any()
    assert known.has(random_hashes(0, 0)).shape == (0,)


def test_many_become_a_filter_that_misses_none_and_errs_as_stated() -> None:
    inside = random_hashes(50_000, 0)
    known = HashSet.of(inside, exact=1000)
    assert not known.is_exact
    assert known.values.nbytes <= 2 * len(inside)
    assert known.has(inside).all()
    asked = 1_000_000
    wrong = int(known.has(random_hashes(asked, 1)).sum())
    assert abs(wrong / asked - FALSE_POSITIVES) < 0.1 * FALSE_POSITIVES


def test_bytes_decide_where_both_have_them_and_ids_elsewhere() -> None:
    ids = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    record = TrainedOn({"train": ImageGroup.of(ids, np.array([11, 12, 13, 14], np.uint64))})
    asked = ["renamed.jpg", "b.jpg", "c.jpg", "other.jpg"]
    same = record.find("train", asked, np.array([11, 99, 0, 98], np.uint64))
    assert same.by_bytes.tolist() == [True, False, False, False]
    assert same.other_bytes.tolist() == [False, True, False, False]
    assert same.by_id.tolist() == [False, False, True, False]
    assert same.by_mistake == 0
    # Of one image in training only the id is known: an id may then be that of the same image.
    record = TrainedOn({"train": ImageGroup.of(ids, np.array([11, 12, 13, 0], np.uint64))})
    same = record.find("train", asked, np.array([11, 99, 0, 98], np.uint64))
    assert same.by_id.tolist() == [False, True, True, False]
    assert not record.find("chosen_on", asked, none_known(4)).by_id.any()


def test_a_filter_says_how_many_it_counts_by_mistake() -> None:
    ids = [f"photo of {i}" for i in range(3000)]
    group = ImageGroup.of(ids, random_hashes(3000, 0), exact=1000)
    record = TrainedOn({"train": group})
    others = [f"another {i}" for i in range(20_000)]
    assert record.find("train", others, none_known(20_000)).by_mistake == pytest.approx(20)
    by_bytes = record.find("train", others, random_hashes(20_000, 1))
    assert by_bytes.by_mistake == pytest.approx(20)
    assert 0 < by_bytes.by_bytes.sum() < 60
    assert not by_bytes.other_bytes.any()  # some 20 ids are taken for known ones, by mistake
    again = record.find("train", ids, random_hashes(3000, 2))
    assert again.other_bytes.sum() > 2990


@pytest.mark.parametrize(
    ("sample", "anyones"),
    [
        ("17", True), ("cats/0017.jpg", True), ("IMG_0042.JPG", True), ("img (3).png", True),
        ("s0000012", True), ("train/000012345", True), ("1000268201_693b08cb0e.jpg", False),
        ("000000391895.jpg", False), ("1000092795.jpg", False), ("n01440764_10026", False),
        ("été.jpg", False), ("", True),
    ],
)  # fmt: skip
def test_ids_that_any_images_may_have(sample: str, anyones: bool) -> None:
    assert is_anyones(sample) is anyones


def test_it_is_saved_and_loaded_and_the_same_bytes_each_time(tmp_path: Path) -> None:
    train = ImageGroup.of(["ä", "b"], np.array([7, 0], np.uint64))
    many = ImageGroup.of([str(i) for i in range(3000)], random_hashes(3000, 0), exact=1000)
    record = TrainedOn({"train": train, "chosen_on": many})
    for name in ("a.npz", "b.npz"):
        record.save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = TrainedOn.load(tmp_path / "a.npz")
    assert again.groups.keys() == record.groups.keys()
    for name, group in record.groups.items():
        other = again.groups[name]
        assert (other.count, other.without_hash) == (group.count, group.without_hash)
        for one, two in ((group.ids, other.ids), (group.images, other.images)):
            assert one.values.dtype == two.values.dtype
            assert one.values.tolist() == two.values.tolist()
    assert again.groups["train"].without_hash == 1


def test_two_records_are_joined_group_by_group() -> None:
    hashes = np.array([11, 12, 0], np.uint64)
    first = TrainedOn({"train": ImageGroup.of(["a", "b", "c"], hashes)})
    second = TrainedOn(
        {
            "train": ImageGroup.of(["b", "d"], np.array([12, 14], np.uint64)),
            "chosen_on": ImageGroup.of(["e"], np.array([15], np.uint64)),
        }
    )
    both = first | second
    assert both.is_exact
    assert {name: (g.count, g.without_hash) for name, g in both.groups.items()} == {
        "train": (4, 1), "chosen_on": (1, 0),
    }  # fmt: skip
    assert both.groups["train"].images.values.tolist() == [11, 12, 14]
    ids = ["x", "c", "d", "e"]
    same = both.find("train", ids, np.array([11, 0, 14, 15], np.uint64))
    assert same.by_bytes.tolist() == [True, False, True, False]
    assert same.by_id.tolist() == [False, True, False, False]
    assert first.groups.keys() == {"train"} and first.groups["train"].count == 3
    filtered = ImageGroup.of(["a", "b"], np.array([1, 2], np.uint64), exact=1)
    assert not TrainedOn({"train": filtered}).is_exact


def test_training_records_what_was_trained_and_chosen_on(tmp_path: Path) -> None:
    pairs = pairs_of(tmp_path)
    train, held_out = pairs.holdout(0.25)
    model = lateen.train(train, validation=held_out, **SETTINGS)
    assert {name: group.count for name, group in model.trained_on.groups.items()} == {
        "train": 9, "chosen_on": 3,
    }  # fmt: skip
    files = {i: (tmp_path / "images" / i).read_bytes() for i in pairs.ids}
    hashes = [hashlib.blake2b(files[i], digest_size=8).digest() for i in train.ids]
    expected = sorted(int.from_bytes(digest, "little") for digest in hashes)
    assert model.trained_on.groups["train"].images.values.tolist() == expected
    assert sorted(hash_ids(train.ids).tolist()) == (
        model.trained_on.groups["train"].ids.values.tolist()
    )
    by_share = lateen.train(pairs, holdout=0.25, **SETTINGS).trained_on
    assert {name: group.count for name, group in by_share.groups.items()} == {
        "train": 9, "chosen_on": 3,
    }  # fmt: skip


def test_of_imported_features_only_ids_are_known(tmp_path: Path) -> None:
    features = np.random.default_rng(0).standard_normal((8, 6)).astype(np.float32)
    np.save(tmp_path / "f.npy", features)
    ids = [f"picture of {i}" for i in range(8)]
    stores = [
        import_features(
            tmp_path / "f.npy", tmp_path / modality, ids=ids, modality=modality, encoder="e"
        )
        for modality in ("image", "text")
    ]
    assert not stores[0].image_hashes().any()
    record = TrainedOn.of(pair(*stores))
    assert record.groups["train"].without_hash == 8
    assert record.find("train", ["picture of 3", "x"], none_known(2)).by_id.tolist() == [
        True,
        False,
    ]


def test_the_record_travels_with_the_model(tmp_path: Path) -> None:
    train, held_out = pairs_of(tmp_path).holdout(0.25)
    model = lateen.train(train, validation=held_out, **SETTINGS)
    model.save_pretrained(tmp_path / "a")
    AlignedModel.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "b")
    first, second = (tmp_path / name / TRAINED_ON for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    AlignedModel.from_pretrained(tmp_path / "b").save_pretrained(tmp_path / "b")  # onto itself
    assert first.read_bytes() == second.read_bytes()
    AlignedModel.from_pretrained(tmp_path / "b").save_pretrained(tmp_path / "b", trained_on=False)
    assert not second.exists()
    assert AlignedModel.from_pretrained(tmp_path / "b").trained_on is None


def test_a_model_without_a_record_does_not_keep_that_of_another(tmp_path: Path) -> None:
    train, held_out = pairs_of(tmp_path).holdout(0.25)
    model = lateen.train(train, validation=held_out, **SETTINGS)
    model.save_pretrained(tmp_path / "m")
    bare = AlignedModel(model.config)
    assert bare.trained_on is None
    bare.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m" / TRAINED_ON).exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "array", "dtype", "version"])
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, damage: str) -> None:
    train, held_out = pairs_of(tmp_path).holdout(0.25)
    lateen.train(train, validation=held_out, **SETTINGS).save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / TRAINED_ON
    whole = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        at = whole.index(arrays["train.images"].tobytes())
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    elif damage == "dtype":
        np.savez(path, **{**arrays, "train.ids": arrays["train.ids"].astype(np.float64)})
    elif damage == "version":
        later = json.dumps({**json.loads(str(arrays["about"])), "version": 99})
        np.savez(path, **{**arrays, "about": np.array(later)})
    elif damage == "array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        path.write_bytes(b"" if damage == "empty" else b"not a record at all")
    model = AlignedModel.from_pretrained(tmp_path / "m")  # which needs no record
    with pytest.raises(ModelError, match="version 99" if damage == "version" else "damaged"):
        _ = model.trained_on


def test_a_store_of_before_has_no_hashes(tmp_path: Path) -> None:
    """Its rows are known by their ids alone; what is encoded since is known by its bytes."""
    run = Path(__file__).parent.parent / "experiment" / "earlier_run" / "run"
    [images] = (run / "stores").glob("train-vision-*")
    assert not Store.open(images).image_hashes().any()
