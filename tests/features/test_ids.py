"""Ids in one buffer, against the plain lists and dicts that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lateen.errors import PairingError
from lateen.features import Description, Store, StoreWriter, ids, pair, pair_grid
from lateen.features.ids import IdIndex, Ids

# Lengths around whole words of eight bytes, zeros at the end, letters of one to four bytes, and
# half characters as file names can have them.
ODD = ["", "a", "a\0", "a\0\0", "1234567", "12345678", "123456789", "12345678" * 2, "ü" * 4, "日本",
       "🦊", "\udc80.jpg", "x" * 1000, "x" * 999 + "y"]  # fmt: skip


@pytest.fixture(params=["as it is", "one for all", "of the length"])
def hashed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash functions as weak as can be, beside the real one."""
    weak: dict[str, Callable[[Ids], np.ndarray]] = {
        "one for all": lambda part: np.zeros(len(part), np.uint64),
        "of the length": lambda part: np.array([len(i) for i in part], np.uint64),
    }
    if request.param in weak:
        monkeypatch.setattr(ids, "_hashes", weak[request.param])


def numbered(count: int) -> list[str]:
    return [f"photos/{i:05d}.jpg" for i in range(count)]


def test_ids_are_a_sequence_like_the_list_they_are_made_of() -> None:
    some = Ids.of(ODD)
    assert list(some) == ODD and some == ODD and len(some) == len(ODD)
    assert ODD == some  # noqa: SIM300 - a list asks its other side
    assert some != ODD[:-1] and some != [*ODD[:-1], "z"] and some != tuple(ODD)
    assert [some[i] for i in range(-len(ODD), len(ODD))] == ODD + ODD
    assert some[np.int64(4)] == "1234567"
    for part in (
        slice(2, 5),
        slice(None, None, -1),
        slice(5, 2),
        slice(1, None, 3),
        slice(-2, None),
    ):
        assert some[part] == ODD[part]
        assert some[part] == Ids.of(ODD[part])
    assert some.index("日本") == 9 and "🦊" in some and "fox" not in some
    assert some + ODD[:2] == ODD + ODD[:2] and ODD[:2] + some == ODD[:2] + ODD
    assert some + some == ODD + ODD
    assert Ids.of(some) is some and sorted(some) == sorted(ODD)
    with pytest.raises(IndexError, match="no id 14 among 14"):
        some[14]
    with pytest.raises(TypeError):
        hash(some)
    assert repr(Ids.of(["a", "b"])) == "['a', 'b']"
    assert repr(Ids.of(numbered(11))).endswith("'photos/00009.jpg', … 11 in all]")


def test_ids_are_taken_and_joined_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_COPY", 16)  # bytes at a time: several times within ODD
    rows = np.random.default_rng(0).integers(0, len(ODD), 100)
    some = Ids.of(ODD)
    assert some.take(rows) == [ODD[i] for i in rows]
    assert some[3:].take([1, 0, -1]) == [ODD[4], ODD[3], ODD[13]]
    assert some.take(np.arange(len(ODD))) is some
    assert Ids.joined([some[2:4], Ids.of([]), some[8:]]) == ODD[2:4] + ODD[8:]
    assert Ids.joined([]) == [] and list(Ids.of([])) == [] and some.take([]) == []


def test_an_id_takes_its_bytes_and_four_more() -> None:
    assert Ids.of(numbered(1000)).nbytes == 1000 * (16 + 4) + 4 + 8


def test_equal_ids_have_equal_hashes_wherever_they_stand() -> None:
    some = Ids.of(ODD + numbered(2000))
    assert len(np.unique(some.hashes())) == len(some)
    order = np.random.default_rng(0).permutation(len(some))
    assert (some.take(order).hashes() == some.hashes()[order]).all()
    assert (some[7:].hashes() == some.hashes()[7:]).all()


@pytest.mark.usefixtures("hashed")
def test_rows_are_found_as_in_a_dict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_CHUNK", 64)
    there = ODD + numbered(150)
    random = np.random.default_rng(0)
    repeated = [there[i] for i in random.integers(0, len(there), 200)]
    first: dict[str, int] = {}
    for row, sample in enumerate(repeated):
        first.setdefault(sample, row)
    index = IdIndex(Ids.of(repeated))
    wanted = [*there, "nowhere", "x" * 998 + "yy"]
    assert index.find(Ids.of(wanted)).tolist() == [first.get(i, -1) for i in wanted]
    absent = [row for row, sample in enumerate(wanted) if sample not in first]
    assert index.lacking(Ids.of(wanted)).tolist() == absent
    repeats = [row for row, sample in enumerate(repeated) if first[sample] != row]
    assert index.repeats().tolist() == repeats
    assert IdIndex(Ids.of([])).find(Ids.of(["a"])).tolist() == [-1]
    assert IdIndex(Ids.of(["a"])).find(Ids.of([])).tolist() == []


def make(folder: Path, samples: list[str], modality: str = "image") -> Store:
    description = Description(
        modality=modality, dim=2, encoder={"id": "e"}, encoder_key="k", source="s",  # type: ignore[arg-type]
        fingerprint=folder.name, column="caption" if modality == "text" else None, dtype="float32",
    )  # fmt: skip
    writer = StoreWriter(folder, description)
    for start in range(0, len(samples), 7):
        part = samples[start : start + 7]
        writer.write(torch.ones(len(part), 2), part, [], len(part))
    writer.finish()
    return Store.open(folder)


def drawn(random: np.random.Generator, count: int, among: int) -> list[str]:
    return [f"{i}.jpg" for i in random.integers(0, among, count)]


@pytest.mark.usefixtures("hashed")
def test_stores_are_joined_as_dicts_of_ids_join_them(tmp_path: Path) -> None:
    """Captions in any order, some images without, some captions without an image."""
    random = np.random.default_rng(0)
    samples = [f"{i}.jpg" for i in random.permutation(40)[:30]]
    columns = [drawn(random, 100, 40), drawn(random, 60, 45)]
    images = make(tmp_path / "i", samples)
    texts = [make(tmp_path / f"t{i}", column, "text") for i, column in enumerate(columns)]
    pairs = pair(images, *texts, missing="drop")
    common = [i for i in samples if all(i in column for column in columns)]
    assert 0 < len(common) < len(samples)
    assert pairs.ids == common
    assert pairs.image_rows.tolist() == [samples.index(i) for i in common]
    assert pairs.dropped == len({*samples, *columns[0], *columns[1]}) - len(common)
    for text, column in zip(pairs.texts, columns, strict=True):
        rows = [[row for row, c in enumerate(column) if c == i] for i in common]
        assert text.rows.tolist() == [row for of_one in rows for row in of_one]
        assert text.counts.tolist() == [len(r) for r in rows]
    order = random.permutation(len(pairs))[:5]
    assert pairs.take(order).ids == [common[i] for i in order]


@pytest.mark.usefixtures("hashed")
def test_a_grid_is_joined_as_sets_of_ids_join_it(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    several = [[f"{i}.jpg" for i in random.permutation(40)[:30]] for _ in range(3)]
    captions = drawn(random, 150, 45)
    stores = [make(tmp_path / f"i{i}", samples) for i, samples in enumerate(several)]
    text = make(tmp_path / "t", captions, "text")
    grid = pair_grid(stores, [[text]], missing="drop")
    common = [i for i in several[0] if i in set(several[1]) & set(several[2]) & set(captions)]
    for [pairs], samples in zip(grid, several, strict=True):
        assert pairs.ids == common
        assert pairs.image_rows.tolist() == [samples.index(i) for i in common]
        assert pairs.dropped == len(set().union(captions, *several)) - len(common)


@pytest.mark.usefixtures("hashed")
def test_the_first_id_that_stands_twice_is_named(tmp_path: Path) -> None:
    samples = [*numbered(20), "photos/00011.jpg", "photos/00003.jpg"]
    images = make(tmp_path / "i", samples)
    with pytest.raises(PairingError, match=r"'photos/00011.jpg' twice \(rows 11 and 20\)"):
        pair(images, make(tmp_path / "t", samples, "text"))


@pytest.mark.usefixtures("hashed")
def test_ids_of_one_side_alone_are_counted_once_in_the_order_of_the_store(tmp_path: Path) -> None:
    images = make(tmp_path / "i", ["z", "a", "y", "x", "v"])
    texts = make(tmp_path / "t", ["q", "a", "p", "q", "o", "n", "q"], "text")
    with pytest.raises(PairingError) as caught:
        pair(images, texts)
    assert str(caught.value).startswith(
        "the stores do not describe the same samples: "
        f"4 ids are only in {images.path}: 'z', 'y', 'x'; "
        f"4 ids are only in {texts.path}: 'q', 'p', 'o'"
    )
