import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from lateen.errors import DataError, PairingError, UsageError
from lateen.features import Description, Store, StoreWriter, import_features, pair
from lateen.features.pairs import split_position
from lateen.features.store import near_duplicates
from lateen.files import content_key


def make(
    folder: Path, ids: list[str], modality: str = "image", skipped: tuple[str, ...] = ()
) -> Store:
    """A store whose row i is [i, i]."""
    description = Description(
        modality=modality, dim=2, encoder={"id": "e"}, encoder_key="k", source="s",  # type: ignore[arg-type]
        fingerprint=folder.name, column="caption" if modality == "text" else None, dtype="float32",
    )  # fmt: skip
    writer = StoreWriter(folder, description)
    rows = torch.arange(float(len(ids)))[:, None].expand(-1, 2)
    skips = [{"id": i, "reason": "bad", "source": i, "sample": True} for i in skipped]
    writer.write(rows, ids, skips, len(ids) + len(skips))
    writer.finish()
    return Store.open(folder)


def test_captions_follow_their_image_whatever_the_order(tmp_path: Path) -> None:
    images = make(tmp_path / "i", ["a", "b", "c"])
    texts = make(tmp_path / "t", ["c", "a", "b", "a", "c"], "text")
    pairs = pair(images, texts)
    assert pairs.ids == ["a", "b", "c"]
    assert pairs.texts[0].counts.tolist() == [2, 1, 2]
    features, owner = pairs.all_texts()
    assert features[:, 0].tolist() == [1, 3, 2, 0, 4]
    assert owner.tolist() == [0, 0, 1, 2, 2]
    second = pairs.text_features(0, np.array([0, 2]), np.array([1, 1]))
    assert second[:, 0].tolist() == [3, 4]
    assert pairs.image_features(np.array([2, 0]))[:, 0].tolist() == [2, 0]


def test_differing_ids_are_named(tmp_path: Path) -> None:
    images = make(tmp_path / "i", ["a", "b", "lonely.jpg"])
    texts = make(tmp_path / "t", ["a", "b", "ghost.jpg"], "text")
    with pytest.raises(PairingError, match=r"lonely\.jpg.*ghost\.jpg.*missing='drop'"):
        pair(images, texts)
    pairs = pair(images, texts, missing="drop")
    assert pairs.ids == ["a", "b"]
    assert pairs.dropped == 2


def test_recorded_skips_explain_a_difference(tmp_path: Path) -> None:
    images = make(tmp_path / "i", ["a", "c"], skipped=("b",))
    texts = make(tmp_path / "t", ["a", "b", "c"], "text")
    assert pair(images, texts).ids == ["a", "c"]


def test_every_column_must_have_a_caption(tmp_path: Path) -> None:
    images = make(tmp_path / "i", ["a", "b"])
    short = make(tmp_path / "s", ["a", "b"], "text")
    long = make(tmp_path / "l", ["b"], "text", skipped=("a",))
    pairs = pair(images, short, long)
    assert pairs.ids == ["b"]
    assert len(pairs.texts) == 2
    assert pairs.text_features(0, np.array([0]), np.array([0]))[0, 0] == 1


def test_duplicate_image_ids_and_mixed_up_stores_are_refused(tmp_path: Path) -> None:
    twice = make(tmp_path / "i", ["a", "a"])
    texts = make(tmp_path / "t", ["a"], "text")
    with pytest.raises(PairingError, match="twice"):
        pair(twice, texts)
    with pytest.raises(PairingError, match="holds text features where image"):
        pair(texts, texts)
    with pytest.raises(PairingError, match="no text store"):
        pair(make(tmp_path / "j", ["a"]))


def test_nothing_in_common(tmp_path: Path) -> None:
    images = make(tmp_path / "i", ["a.jpg"])
    texts = make(tmp_path / "t", ["a"], "text")
    with pytest.raises(PairingError, match=r"share no id.*'a\.jpg' against 'a'"):
        pair(images, texts, missing="drop")


def test_a_holdout_goes_by_id_and_keeps_captions_together(tmp_path: Path) -> None:
    ids = [f"id{i}" for i in range(40)]
    pairs = pair(make(tmp_path / "i", ids), make(tmp_path / "t", ids + ids, "text"))
    rest, held = pairs.holdout(0.25, seed=3)
    assert len(held) == 10
    assert sorted(rest.ids + held.ids) == sorted(ids)
    shuffled = pair(make(tmp_path / "i2", ids[::-1]), make(tmp_path / "t2", ids, "text"))
    assert set(shuffled.holdout(0.25, seed=3)[1].ids) == set(held.ids)
    assert set(pairs.holdout(0.25, seed=4)[1].ids) != set(held.ids)
    _, owner = held.all_texts()
    assert owner.tolist() == [i for i in range(10) for _ in range(2)]


def test_the_key_changes_with_content_and_order(tmp_path: Path) -> None:
    pairs = pair(make(tmp_path / "i", ["a", "b"]), make(tmp_path / "t", ["a", "b"], "text"))
    assert pairs.key != pairs.take(np.array([1, 0])).key
    assert pairs.key == pairs.take(np.array([0, 1])).key


def test_the_key_does_not_depend_on_how_many_ids_are_hashed_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = ["a", "", "ü", "b/c", "d"]
    pairs = pair(make(tmp_path / "i", ids), make(tmp_path / "t", ids, "text"))
    whole = pairs.key
    for chunk in (1, 2, 5):
        monkeypatch.setattr("lateen.features.pairs._CHUNK", chunk)
        assert pairs.key == whole
    joined = hashlib.sha256("\n".join(ids).encode()).hexdigest()
    chosen = [(column.store.manifest.content, column.position) for column in pairs.texts]
    assert whole == content_key([joined, pairs.image.manifest.content, chosen])


def test_captions_are_chosen_by_position(tmp_path: Path) -> None:
    texts = make(tmp_path / "t", ["b", "a", "b", "a", "b"], "text")
    pairs = pair(make(tmp_path / "i", ["a", "b"]), texts)
    both = pairs.with_captions("caption#1", "caption#0", "caption")
    assert [column.name for column in both.texts] == ["caption#1", "caption#0", "caption"]
    assert [column.rows.tolist() for column in both.texts] == [[3, 2], [1, 0], [1, 3, 0, 2, 4]]
    assert [column.counts.tolist() for column in both.texts] == [[1, 1], [1, 1], [2, 3]]
    features, owner = both.all_texts(0)
    assert features[:, 0].tolist() == [3, 2]
    assert owner.tolist() == [0, 1]
    reordered = both.take(np.array([1, 0]))
    assert reordered.texts[0].rows.tolist() == [2, 3]
    assert reordered.texts[0].name == "caption#1"


def test_the_key_changes_with_the_chosen_captions(tmp_path: Path) -> None:
    ids = ["a", "b", "a", "b"]
    pairs = pair(make(tmp_path / "i", ["a", "b"]), make(tmp_path / "t", ids, "text"))
    choices = [("caption",), ("caption#0",), ("caption#1",), ("caption#0", "caption#1")]
    assert len({pairs.with_captions(*names).key for names in choices}) == 4
    assert pairs.with_captions("caption").key == pairs.key


def test_a_position_that_an_image_does_not_have_names_that_image(tmp_path: Path) -> None:
    pairs = pair(
        make(tmp_path / "i", ["a", "poor.jpg"]),
        make(tmp_path / "t", ["a", "a", "poor.jpg"], "text"),
    )
    assert pairs.with_captions("caption#0").texts[0].rows.tolist() == [0, 2]
    with pytest.raises(DataError, match=r"caption#1 needs 2 captions.*'poor\.jpg' has 1.*1 images"):
        pairs.with_captions("caption#1")
    with pytest.raises(DataError, match=r"no caption column 'captoin'.*'caption'"):
        pairs.with_captions("captoin#0")


def test_only_a_number_after_the_mark_is_a_position() -> None:
    assert split_position("caption#12") == ("caption", 12)
    assert split_position("a#b#0") == ("a#b", 0)
    for name in ("caption", "caption#", "caption#-1", "caption#x", "#"):
        assert split_position(name) == (name, None)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["a.jpg", "b.jpg"], "but for their endings"),
        (["x/a", "y/b"], "but for the folders before them"),
        (["A", "B"], "but for capital letters"),
        (["x/a.jpg", "y/b.jpg"], "but for folders and endings"),
    ],
)
def test_ids_that_are_the_same_but_for_how_they_are_written(
    texts: list[str], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = make(tmp_path / "i", ["a", "b", "c"])
    captions = make(tmp_path / "t", texts, "text")
    with pytest.raises(
        PairingError, match=rf"2 of them are the same {words} \('a' and '{texts[0]}'"
    ):
        pair(images, captions)
    with pytest.raises(PairingError, match=rf"share no id.*the same {words}") as caught:
        pair(images, captions, missing="drop")
    assert "--ids alike" in str(caught.value.remedy)
    joined = pair(images, captions, missing="drop", ids="alike")
    assert list(joined.ids) == ["a", "b"]
    assert joined.texts[0].rows.tolist() == [0, 1]
    assert f"2 of 2 captions are joined by ids that are the same {words}" in caplog.text
    with pytest.raises(PairingError, match=r"1 ids are only in .*: 'c'"):
        pair(images, captions, ids="alike")


def test_ids_that_two_spellings_would_mix_up_are_not_said_to_be_the_same(tmp_path: Path) -> None:
    images = make(tmp_path / "i", ["a.jpg", "a.png"])
    captions = make(tmp_path / "t", ["a", "b"], "text")
    for ids in ("exact", "alike"):
        with pytest.raises(PairingError) as caught:
            pair(images, captions, ids=ids)
        assert "of them are the same" not in str(caught.value)


def test_only_ids_that_differ_are_joined_by_another_spelling(tmp_path: Path) -> None:
    images = make(tmp_path / "i", ["a.jpg", "b.jpg", "c.jpg"])
    captions = make(tmp_path / "t", ["a.jpg", "b", "c", "b"], "text")
    joined = pair(images, captions, ids="alike")
    assert list(joined.ids) == ["a.jpg", "b.jpg", "c.jpg"]
    assert joined.texts[0].rows.tolist() == [0, 1, 3, 2]
    assert joined.texts[0].counts.tolist() == [1, 2, 1]


def test_near_duplicates_within_a_store_and_between_two(tmp_path: Path) -> None:
    angles = {"a": 0.0, "b": 0.1, "c": 1.5, "d": 0.1}
    texts = {"x": 1.45, "y": 0.9}
    stores = []
    for name, samples in (("first", angles), ("second", texts)):
        values = torch.tensor(list(samples.values()))
        rows = torch.stack([values.cos(), values.sin()], 1)
        np.save(tmp_path / f"{name}.npy", rows.numpy())
        stores.append(import_features(
            tmp_path / f"{name}.npy", tmp_path / name, ids=list(samples), modality="image",
            encoder="e", dtype="float32",
        ))  # fmt: skip
    inside = near_duplicates(stores[0], above=0.99)
    assert [(near.id, near.other) for near in inside] == [("b", "d"), ("a", "b")]
    assert [near.cosine for near in inside] == pytest.approx([1, np.cos(0.1)], abs=1e-6)
    (between,) = near_duplicates(*stores, above=0.99)
    assert (between.id, between.other) == ("c", "x")
    other = import_features(
        tmp_path / "second.npy", tmp_path / "o", ids=list(texts), modality="image", encoder="f"
    )
    with pytest.raises(UsageError, match="above is 95"):
        near_duplicates(stores[0], above=95)
    with pytest.raises(PairingError, match="different encoders"):
        near_duplicates(stores[0], other)
