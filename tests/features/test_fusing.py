"""Fusing stores: which rows meet, what a fused row is, and what the store says of itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lateen
from lateen.encoders.fused import fuse_features
from lateen.errors import PairingError, StoreError, UsageError
from lateen.features import Description, Store, StoreWriter, fusing, import_features
from lateen.features.fusing import fuse

SKIP = {"id": "x", "reason": "damaged", "source": "x.png", "sample": True, "column": None}
INFO = {"modality": "image", "pooling": "mean", "layer": None, "preprocessing": {},
        "precision": "float32", "revision": None}  # fmt: skip


def part(
    folder: Path, ids: str, dim: int = 3, *, seed: int = 0, skipped: str = "",
    fingerprint: str = "data", modality: Any = "image", column: str | None = None,
    load: bool = True, **info: Any,
) -> Store:  # fmt: skip
    """A store with a row of random values for each letter of ``ids``."""
    weights = f"{folder.name}{seed}"
    encoder = {**INFO, "id": folder.name, "dim": dim, "weights": weights,
               "load": {"name": f"/models/{folder.name}"} if load else {}, **info}  # fmt: skip
    encoder["modality"] = modality
    description = Description(
        modality, dim, encoder, weights, "photos", fingerprint, column, "float32"
    )
    writer = StoreWriter(folder, description)
    skips = [{**SKIP, "id": i} for i in skipped]
    values = torch.randn(len(ids), dim, generator=torch.Generator().manual_seed(seed))
    writer.write(values, list(ids), skips, len(ids) + len(skips))
    writer.finish()
    return Store.open(folder)


def test_a_fused_row_by_hand() -> None:
    first, second = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, -2.0, 0.0, 0.0]])
    fused = fuse_features([first, second], [1.0, 0.5])
    expected = [[3 / 5 * 2**0.5, 4 / 5 * 2**0.5, 0.0, -1.0, 0.0, 0.0]]
    torch.testing.assert_close(fused, torch.tensor(expected))
    mean_squares = [p.square().mean().item() for p in fused.split([2, 4], dim=1)]
    assert mean_squares == pytest.approx([1.0, 0.25])


def test_neither_scale_nor_extreme_values_matter() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0]])
    expected = fuse_features([values, values], [1, 1])
    for scale in (1e-30, 1e30):
        torch.testing.assert_close(fuse_features([values * scale, values], [1, 1]), expected)
    zeros = fuse_features([torch.zeros(1, 2), torch.ones(1, 2)], [1, 1])
    torch.testing.assert_close(zeros, torch.tensor([[0.0, 0.0, 1.0, 1.0]]))


def test_rows_are_joined_by_id_in_the_order_of_the_first(tmp_path: Path) -> None:
    first, second = part(tmp_path / "a", "bca"), part(tmp_path / "b", "abc", 2, seed=1)
    fused = lateen.fuse([first, tmp_path / "b"], tmp_path / "f", weights=[1, 2])
    assert fused.ids == ["b", "c", "a"]
    assert (fused.dim, fused.modality) == (5, "image")
    for i in "abc":
        rows = [store[[store.ids.index(i)]] for store in (first, second)]
        torch.testing.assert_close(
            fused[[fused.ids.index(i)]], fuse_features(rows, [1, 2]), rtol=1e-3, atol=1e-3
        )
    assert fused.manifest.description.dtype == "float16"
    exact = fuse([first, second], tmp_path / "g", dtype="float32")
    torch.testing.assert_close(exact[:], fuse_features([first[:], second[[1, 2, 0]]], [1, 1]))


def test_what_either_skipped_leaves_with_its_record(tmp_path: Path) -> None:
    first = part(tmp_path / "a", "abd", skipped="cx")
    second = part(tmp_path / "b", "cba", seed=1, skipped="dx")
    fused = fuse([first, second], tmp_path / "f")
    assert fused.ids == ["a", "b"]
    assert [skip["id"] for skip in fused.skipped] == ["c", "x", "d"]  # x, skipped by both, once


def test_ids_that_differ_are_named(tmp_path: Path) -> None:
    first, second = part(tmp_path / "a", "abcd"), part(tmp_path / "b", "eab", seed=1)
    with pytest.raises(PairingError, match=r"2 ids are only in .*a: 'c', 'd'; 1 ids .*b: 'e'"):
        fuse([first, second], tmp_path / "f")
    twice = part(tmp_path / "t", "abba")
    with pytest.raises(PairingError, match=r"t has the id 'b' twice \(rows 1 and 2\)"):
        fuse([twice, twice], tmp_path / "f")
    left, right = part(tmp_path / "l", "a", skipped="b"), part(tmp_path / "r", "b", skipped="a")
    with pytest.raises(PairingError, match="no image is in all of the 2 stores"):
        fuse([left, right], tmp_path / "f")
    assert not (tmp_path / "f").exists()


def test_the_key_changes_with_every_part_and_weight(tmp_path: Path) -> None:
    a, b = part(tmp_path / "a", "abc"), part(tmp_path / "b", "abc", seed=1)
    changed = [
        part(tmp_path / "1" / "b", "abc", seed=2),
        part(tmp_path / "2" / "b", "abc", seed=1, fingerprint="other data"),
        part(tmp_path / "3" / "b", "acb", seed=1),
    ]
    stores = [
        fuse([a, b], tmp_path / "f0"), fuse([b, a], tmp_path / "f1"),
        fuse([a, b], tmp_path / "f2", weights=[1, 0.5]), fuse([a, b, b], tmp_path / "f3"),
        fuse([a, b], tmp_path / "f4", dtype="float32"),
        *(fuse([a, other], tmp_path / f"g{i}") for i, other in enumerate(changed)),
    ]  # fmt: skip
    assert len({store.manifest.description.key for store in stores}) == len(stores)
    moved = part(tmp_path / "elsewhere" / "b", "abc", seed=1)
    again = fuse([a, moved], tmp_path / "f5")
    assert again.manifest.description.key == stores[0].manifest.description.key


def test_a_store_says_what_it_is_made_of(tmp_path: Path) -> None:
    a = part(tmp_path / "a", "ab", pooling="cls", layer=6)
    b = part(tmp_path / "b", "ab", 2, precision="bfloat16")
    encoder = fuse([a, b], tmp_path / "f").manifest.description.encoder
    assert encoder["id"] == "a + b"
    assert encoder["pooling"] == "cls at layer 6, mean"
    assert encoder["precision"] == "float32, bfloat16"
    assert encoder["load"] == {
        "name": "fused", "parts": [{"name": "/models/a"}, {"name": "/models/b"}],
        "weights": [1.0, 1.0],
    }  # fmt: skip
    assert [p["key"] for p in encoder["stores"]] == [s.manifest.description.key for s in (a, b)]
    unknown = part(tmp_path / "u", "ab", load=False)
    assert fuse([a, unknown], tmp_path / "g").manifest.description.encoder["load"] == {}


def test_of_imported_parts_no_more_is_claimed_than_is_known(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.ones((2, 4), np.float32))
    imported = import_features(
        tmp_path / "f.npy", tmp_path / "i", ids=["a", "b"], modality="image", encoder="mine"
    )
    encoder = fuse([part(tmp_path / "a", "ab"), imported], tmp_path / "f").manifest.description
    assert {k: v for k, v in encoder.encoder.items() if k != "stores"} == {
        "id": "a + mine", "modality": "image", "dim": 7,
    }  # fmt: skip


def test_a_finished_store_is_left_and_a_killed_one_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusing, "SHARD_ROWS", 2)
    stores = [part(tmp_path / "a", "abcde", skipped="x"), part(tmp_path / "b", "edcba", seed=1)]
    whole = fuse(stores, tmp_path / "whole")
    assert len(whole.manifest.shards) == 3
    written: list[int] = []
    write = StoreWriter.write

    def killed(self: StoreWriter, *arguments: Any, **options: Any) -> None:
        if len(self.shards) == 2 and len(written) < 3:
            written.append(-1)
            raise KeyboardInterrupt
        written.append(len(self.shards))
        write(self, *arguments, **options)

    monkeypatch.setattr(StoreWriter, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        fuse(stores, tmp_path / "killed")
    with pytest.raises(StoreError, match="not finished"):
        Store.open(tmp_path / "killed")
    again = fuse(stores, tmp_path / "killed")
    assert written == [0, 1, -1, 2]
    for file in (*whole.path.glob("shard-*"), whole.path / "manifest.json"):
        assert (again.path / file.name).read_bytes() == file.read_bytes(), file.name
    assert again.skipped == whole.skipped
    fuse(stores, tmp_path / "killed")
    assert len(written) == 4


def test_another_fusion_does_not_replace_a_store_unasked(tmp_path: Path) -> None:
    a, b = part(tmp_path / "a", "ab"), part(tmp_path / "b", "ab", seed=1)
    fuse([a, b], tmp_path / "f")
    with pytest.raises(StoreError, match="holds features made differently"):
        fuse([a, b], tmp_path / "f", weights=[1, 3])
    replaced = fuse([a, b], tmp_path / "f", weights=[1, 3], overwrite=True)
    assert replaced[:].norm(dim=1).tolist() == pytest.approx([30**0.5] * 2, rel=1e-3)
    with pytest.raises(UsageError, match="is one of the stores"):
        fuse([a, b], tmp_path / "a", overwrite=True)
    assert Store.open(tmp_path / "a").ids == ["a", "b"]


@pytest.mark.parametrize(
    ("count", "weights", "message"),
    [
        (1, None, "1 cannot be fused. Give two parts or more"),
        (0, None, "0 cannot be fused"),
        (2, [1], "1 weights do not fit 2 parts"),
        (2, [1, 0], "a weight is 0.0"),
        (2, [1, float("nan")], "a weight is nan"),
        (2, [float("inf"), 1], "a weight is inf"),
    ],
)
def test_what_cannot_be_fused(
    tmp_path: Path, count: int, weights: list[float] | None, message: str
) -> None:
    store = part(tmp_path / "a", "ab")
    with pytest.raises(UsageError, match=message):
        fuse([store] * count, tmp_path / "f", weights=weights)


def test_a_fused_store_is_not_fused_again(tmp_path: Path) -> None:
    a, b = part(tmp_path / "a", "ab"), part(tmp_path / "b", "ab", seed=1)
    fused = fuse([a, b], tmp_path / "f")
    with pytest.raises(UsageError, match=r"a \+ b is itself fused. Fuse its parts"):
        fuse([a, fused], tmp_path / "g")


def test_a_weight_that_float16_cannot_hold_is_explained(tmp_path: Path) -> None:
    a, b = part(tmp_path / "a", "ab"), part(tmp_path / "b", "ab", seed=1)
    with pytest.raises(StoreError, match=r"do not fit float16.*float32"):
        fuse([a, b], tmp_path / "f", weights=[1, 1e6])


def captions(folder: Path, ids: str, **options: Any) -> Store:
    return part(folder, ids, modality="text", column=options.pop("column", "caption"), **options)


def test_texts_are_fused_row_by_row(tmp_path: Path) -> None:
    a, b = captions(tmp_path / "a", "aabbb"), captions(tmp_path / "b", "aabbb", dim=2, seed=1)
    fused = fuse([a, b], tmp_path / "f", dtype="float32")
    assert (fused.ids, fused.name) == (list("aabbb"), "caption")
    torch.testing.assert_close(fused[:], fuse_features([a[:], b[:]], [1, 1]))


def test_texts_that_are_not_the_same_captions_are_refused(tmp_path: Path) -> None:
    a = captions(tmp_path / "a", "aabb")
    for name, options in {"c": {"column": "long"}, "d": {"fingerprint": "edited"}}.items():
        with pytest.raises(PairingError, match="not of the same captions"):
            fuse([a, captions(tmp_path / name, "aabb", **options)], tmp_path / "f")
    with pytest.raises(PairingError, match=r"from row 1 on, .*\(4 and 3 rows\)"):
        fuse([a, captions(tmp_path / "e", "abb")], tmp_path / "f")
    with pytest.raises(PairingError, match=r"from row 3 on"):
        fuse([a, captions(tmp_path / "g", "aab")], tmp_path / "f")
    with pytest.raises(PairingError, match=r"a holds text features, .*i image features"):
        fuse([a, part(tmp_path / "i", "ab")], tmp_path / "f")


def test_imported_captions_are_fused_with_encoded_ones(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32))
    imported = import_features(
        tmp_path / "f.npy", tmp_path / "i", ids=list("aabb"), modality="text", encoder="mine"
    )
    assert len(fuse([captions(tmp_path / "a", "aabb"), imported], tmp_path / "f")) == 4


def test_skips_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "SHARD_ROWS", 1)
    a, b = part(tmp_path / "a", "ab", skipped="x"), part(tmp_path / "b", "ab", skipped="x")
    fuse([a, b], tmp_path / "f")
    lines = (tmp_path / "f" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [SKIP]


def test_hashes_of_the_images_are_those_of_the_part_that_has_them(tmp_path: Path) -> None:
    first = part(tmp_path / "a", "abc", 3)  # as of an earlier version: without
    description = Description("image", 2, {**INFO, "id": "b", "dim": 2}, "b", "photos", "data")
    writer = StoreWriter(tmp_path / "b", description)
    hashes = np.array([7, 2**64 - 1, 5], np.uint64)
    writer.write(torch.ones(3, 2), list("cab"), [], 3, image_hashes=hashes)
    writer.finish()
    fused = fuse([first, tmp_path / "b"], tmp_path / "f")
    assert fused.ids == ["a", "b", "c"]
    assert fused.image_hashes().tolist() == [2**64 - 1, 5, 7]
    assert fused.image_hashes([2, 0]).tolist() == [7, 2**64 - 1]
    alone = fuse([first, part(tmp_path / "d", "abc", seed=1)], tmp_path / "g")
    assert alone.image_hashes().tolist() == [0, 0, 0]
