from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import pytest
from builders import is_fixed, jpeg, samples, skips, write_images

from lateen.data.hub import HubDataset
from lateen.data.images import decode_image
from lateen.errors import DataError, UsageError


@pytest.fixture(autouse=True)
def _quiet() -> Any:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def build(count: int = 3, start: int = 0, **columns: list[Any]) -> datasets.Dataset:
    rows = {
        "picture": [{"bytes": jpeg((i, i, i)), "path": None} for i in range(start, start + count)],
        "caption": [[f"{i}a", f"{i}b"] for i in range(start, start + count)],
    }
    table = datasets.Dataset.from_dict({**rows, **columns})
    return table.cast_column("picture", datasets.Image())


def save(folder: Path, content: Any) -> Path:
    content.save_to_disk(folder)
    return folder


def grey(image: Any) -> int:
    value = decode_image(image).getpixel((0, 0))
    assert isinstance(value, tuple)
    return int(value[0])


def test_a_saved_dataset(tmp_path: Path) -> None:
    folder = save(tmp_path / "d", build(image_id=[5, 6, 7]))
    dataset = HubDataset(folder)
    assert dataset.columns == ("caption",)
    found = samples(dataset)
    assert [sample.id for sample in found] == ["5", "6", "7"]
    assert found[1].captions == {"caption": ("1a", "1b")}
    assert [grey(sample.image) for sample in found] == [0, 1, 2]
    assert is_fixed(dataset, lambda: HubDataset(folder))


def test_images_are_not_decoded_and_can_be_read_from_threads(tmp_path: Path) -> None:
    images = [{"bytes": b"%d is no image" % i, "path": None} for i in range(300)]
    dataset = HubDataset(save(tmp_path / "d", build(300, picture=images)))
    found = samples(dataset)
    assert [sample.id for sample in found] == [str(i) for i in range(300)]
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(lambda sample: sample.image.read(), found))
    assert contents == [image["bytes"] for image in images]


def test_images_that_are_files_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    paths = [str(tmp_path / name) for name in ("a.jpg", "b.jpg", "absent.jpg")]
    images = [{"bytes": None, "path": path} for path in [*paths, None]]
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: build(4, picture=images))
    dataset = HubDataset("owner/name")
    first, second, absent, none = samples(dataset)
    assert (grey(first.image), grey(second.image)) == (0, 1)
    for sample in (absent, none):
        with pytest.raises(OSError, match=r"no image|No such file"):
            assert sample.image is not None and sample.image.read()
    before = dataset.fingerprint
    (tmp_path / "a.jpg").write_bytes(jpeg((77, 77, 77)))
    assert HubDataset("owner/name").fingerprint != before


def test_duplicate_and_missing_ids_are_recorded(tmp_path: Path) -> None:
    dataset = HubDataset(save(tmp_path / "d", build(3, key=["x", "x", None])))
    assert [sample.id for sample in samples(dataset)] == ["x"]
    assert [(skip.id, skip.sample, skip.source[-3:]) for skip in skips(dataset)] == [
        ("x", False, "[1]"), ("", False, "[2]"),
    ]  # fmt: skip


def test_splits(tmp_path: Path) -> None:
    both = datasets.DatasetDict({"train": build(3), "test": build(2, start=10)})
    folder = save(tmp_path / "d", both)
    assert [grey(sample.image) for sample in samples(HubDataset(folder, split="test"))] == [10, 11]
    with pytest.raises(UsageError, match="several splits") as caught:
        HubDataset(folder)
    assert "train, test" in caught.value.remedy
    with pytest.raises(UsageError, match="no split 'tset'") as caught:
        HubDataset(folder, split="tset")
    assert "Did you mean 'test'?" in caught.value.remedy
    assert len(HubDataset(save(tmp_path / "one", datasets.DatasetDict({"train": build(3)})))) == 3


def test_columns(tmp_path: Path) -> None:
    folder = save(tmp_path / "d", build(2, note=["x", "y"]))
    assert HubDataset(folder, captions=["note"]).columns == ("note",)
    assert HubDataset(folder, image_column="picture").columns == ("caption",)
    with pytest.raises(DataError, match="no column 'note2'"):
        HubDataset(folder, captions=["note2"])
    with pytest.raises(DataError, match="'note' is not of the type Image"):
        HubDataset(folder, image_column="note")
    with pytest.raises(DataError, match="no column 'pic'"):
        HubDataset(folder, image_column="pic")


def test_images_alone_and_texts_alone(tmp_path: Path) -> None:
    images = HubDataset(save(tmp_path / "i", build(2).remove_columns("caption")))
    assert images.columns == ()
    assert [(sample.id, grey(sample.image)) for sample in samples(images)] == [("0", 0), ("1", 1)]
    texts = HubDataset(save(tmp_path / "t", build(2).remove_columns("picture")))
    assert [(sample.id, sample.image) for sample in samples(texts)] == [("0", None), ("1", None)]
    assert is_fixed(texts, lambda: HubDataset(tmp_path / "t"))


def test_the_fingerprint_follows_the_images(tmp_path: Path) -> None:
    one = HubDataset(save(tmp_path / "1", build(2))).fingerprint
    assert HubDataset(save(tmp_path / "2", build(2))).fingerprint == one
    other = build(2, picture=[{"bytes": jpeg((i, 9, 9)), "path": None} for i in range(2)])
    assert HubDataset(save(tmp_path / "3", other)).fingerprint != one


def test_a_hub_name_is_loaded_with_its_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str, *, split: str | None, keep_in_memory: bool) -> datasets.Dataset:
        asked.append((name, split))
        return build(2)

    monkeypatch.setattr(datasets, "load_dataset", load)
    dataset = HubDataset("owner/name", split="test")
    assert asked == [("owner/name", "test")]
    assert (dataset.name, len(dataset)) == ("owner/name", 2)


@pytest.mark.parametrize("error", [
    datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub."),
    datasets.exceptions.DatasetGenerationError("An error occurred"),
    ConnectionError("Couldn't reach 'a/b' on the Hub"),
    ValueError("Unknown split 'x'.\nShould be one of ['train']."),
])  # fmt: skip
def test_what_cannot_be_loaded_is_an_error_with_a_remedy(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match="a/b cannot be loaded") as caught:
        HubDataset("a/b", split="x")
    assert "\n" not in str(caught.value)
    assert "hf auth login" in caught.value.remedy


def test_a_folder_that_is_no_saved_dataset_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be loaded"):
        HubDataset(tmp_path)


def copies(*greys: int) -> list[Any]:
    return [{"bytes": jpeg((g, g, g)), "path": None} for g in greys]


def test_a_row_for_each_caption_of_an_image(tmp_path: Path) -> None:
    rows = build(4, picture=copies(0, 1, 0, 9), caption=["a", "b", "c", "d"], image_id=[5, 6, 5, 6])
    dataset = HubDataset(save(tmp_path / "d", rows))
    found = {sample.id: sample.captions["caption"] for sample in samples(dataset)}
    assert found == {"5": ("a", "c"), "6": ("b",)}  # 6 has another picture the second time
    assert [(skip.id, skip.sample, skip.source[-3:]) for skip in skips(dataset)] == [
        ("6", False, "[3]")
    ]
    assert is_fixed(dataset, lambda: HubDataset(tmp_path / "d"))


def test_without_ids_the_same_picture_is_the_same_image(tmp_path: Path) -> None:
    rows = build(5, picture=copies(0, 1, 0, 1, 2), caption=["a", "b", "c", "", "e"])
    dataset = HubDataset(save(tmp_path / "d", rows))
    found = samples(dataset)
    assert [(s.id, s.captions["caption"]) for s in found] == [
        ("0", ("a", "c")), ("1", ("b",)), ("4", ("e",)),
    ]  # fmt: skip
    assert [grey(sample.image) for sample in found] == [0, 1, 2]
    assert [(skip.id, skip.source[-3:]) for skip in skips(dataset)] == [("1", "[3]")]
    assert is_fixed(dataset, lambda: HubDataset(tmp_path / "d"))


def test_captions_within_objects(tmp_path: Path) -> None:
    sentences = [[{"raw": "a", "id": 1}, {"raw": "b", "id": 2}], [{"raw": "c", "id": 3}]]
    rows = build(2).remove_columns("caption").add_column("sentences", sentences)
    dataset = HubDataset(save(tmp_path / "d", rows))
    assert [sample.captions["sentences"] for sample in samples(dataset)] == [("a", "b"), ("c",)]


def test_copies_among_rows_in_memory_are_looked_for_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for greys, count in (((0, 0), 1), ((0, 1), 2)):
        rows = build(2, picture=copies(*greys))
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, rows=rows, **__: rows)
        assert len(samples(HubDataset("owner/name"))) == count
