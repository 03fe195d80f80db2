"""An index grows with the folder: what is written, found, kept and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import calibrated_model, saved_model
from PIL import Image
from toys import COLOURS, ColourEncoder, album, photo

import lateen
from lateen.errors import BusyError, DataError, LateenError, ModelError, StoreError, UsageError
from lateen.files import folder_lock
from lateen.indexing import Filters, Index, Query, Term, building, gallery
from lateen.indexing.building import update_index
from lateen.indexing.contents import Contents
from lateen.indexing.gallery import Gallery
from lateen.indexing.given_model import GivenModel
from lateen.indexing.table import PhotoTable
from lateen.model import open_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved_model(tmp_path / "model")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve photographs in folders, older than what could be changing still."""
    folder = tmp_path / "photos"
    for i in range(12):
        photo(folder / ("ab"[i % 2]) / f"{i:02d}.png", list(COLOURS)[i % 6], seed=i)
    settle(folder)
    return folder


def settle(folder: Path) -> None:
    """Make all files old enough that a change would show in their times."""
    past = time.time() - 100
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mtime > past:
            os.utime(path, (past, past))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many images each forward pass had."""
    seen: list[int] = []
    plain = ColourEncoder.encode

    def counting(self: ColourEncoder, prepared: list[torch.Tensor]) -> torch.Tensor:
        seen.append(len(prepared))
        return plain(self, prepared)

    monkeypatch.setattr(ColourEncoder, "encode", counting)
    yield seen


def update(place: Path, photos: Path, model: Path, **options: Any) -> building.Update:
    return update_index(place, Contents.of(photos), GivenModel(model), **options)


def everything(place: Path) -> dict[str, list[float]]:
    """Every photograph's embedding, by id; those of the table itself."""
    table = PhotoTable(place)
    rows = Gallery.of(table)
    ids = rows.rows["id"].to_pylist()
    assert len(ids) == len(set(ids)) == table.count()
    return dict(zip(ids, rows.vectors.tolist(), strict=True))


def test_only_what_is_new_is_encoded_and_what_is_gone_is_removed(
    tmp_path: Path, photos: Path, model: Path, encoded: list[int]
) -> None:
    place = tmp_path / "index"
    first = update(place, photos, model)
    assert (first.added, first.changed, first.removed, first.count) == (12, 0, 0, 12)
    assert sum(encoded) == 12
    photo(photos / "new" / "x.png", "red", seed=55)
    (photos / "a" / "00.png").rename(photos / "moved.png")
    shutil.copyfile(photos / "b" / "01.png", photos / "b" / "copy.png")
    photo(photos / "b" / "03.png", "white", seed=77)
    (photos / "b" / "05.png").unlink()
    settle(photos)
    second = update(place, photos, model)
    assert (second.added, second.changed, second.removed, second.count) == (3, 1, 2, 13)
    assert second.moved == 2
    assert sum(encoded) == 14  # the new one, and the one that was changed
    ready = open_model(model)
    for name, vector in everything(place).items():
        expected = ready.encode_image(photos / name)[0].numpy()
        np.testing.assert_allclose(vector[: len(expected)], expected, atol=1e-3)
    assert update(place, photos, model) == building.Update(0, 0, 0, 0, [], 13)


def test_a_second_call_loads_neither_model_nor_lancedb(
    tmp_path: Path, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "index"
    update(place, photos, model)
    monkeypatch.setattr("lateen.model.open_model", None)
    monkeypatch.setattr(building, "PhotoTable", None)
    assert update(place, photos, model).count == 12


def test_what_cannot_be_read_is_told_each_time_and_tried_when_it_changes(
    tmp_path: Path, photos: Path, model: Path, encoded: list[int]
) -> None:
    place = tmp_path / "index"
    (photos / "bad.png").write_bytes(b"no picture")
    settle(photos)
    for _ in range(2):
        done = update(place, photos, model)
        assert [row["id"] for row in done.unreadable] == ["bad.png"]
        assert "not an image" in done.unreadable[0]["reason"]
    assert Index.open(place).skipped() == done.unreadable
    photo(photos / "bad.png", "blue", seed=4)
    (photos / "a" / "02.png").write_bytes(b"no longer")
    settle(photos)
    done = update(place, photos, model)
    assert (done.added, done.removed, done.count) == (1, 0, 12)
    assert [row["id"] for row in done.unreadable] == ["a/02.png"]
    assert set(everything(place)) == {str(p.relative_to(photos)) for p in photos.rglob("*.png")} - {
        "a/02.png"
    }


def test_a_folder_of_nothing_readable_is_an_error(tmp_path: Path, model: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "bad.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of the 1 images"):
        update(tmp_path / "index", tmp_path / "p", model)


# -- what is found ---------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, photos: Path, model: Path) -> Index:
    return lateen.index(photos, model, tmp_path / "index")


def test_it_finds_what_comparing_everything_finds(index: Index, model: Path, photos: Path) -> None:
    ready = open_model(model)
    ids = sorted(everything(Path(index.place)))
    images = ready.encode_image([photos / name for name in ids])
    cosines = (images @ ready.encode_text("red and blue")[0]).tolist()
    order = sorted(range(len(ids)), key=lambda i: -cosines[i])
    found = index.search("red and blue", k=12)
    assert [hit.score for hit in found.hits] == pytest.approx([cosines[i] for i in order], abs=1e-3)
    assert {hit.id for hit in found.hits[:4]} == {ids[i] for i in order[:4]}
    pages = [index.search("red and blue", k=5, offset=start).hits for start in (0, 5, 10)]
    assert [hit for page in pages for hit in page] == found.hits
    assert found.among == 12 and found.cut_off is None
    assert (found.hits[0].about["width"], found.hits[0].about["height"]) == (16, 12)


def test_terms_add_up(index: Index, model: Path, photos: Path) -> None:
    ready = open_model(model)
    text = ready.encode_text(["red", "white"])
    image = ready.encode_image(photos / "b" / "05.png")[0]
    expected = 2 * text[0] - 0.5 * text[1] + image
    expected /= expected.norm()
    query = Query((Term(2, text="red"), Term(-0.5, text="white"),
                   Term(1, image=photos / "b" / "05.png")))  # fmt: skip
    found = index.search(query, k=20)
    assert found.same == ["b/05.png"] and len(found.hits) == 11
    for hit in found.hits:
        cosine = float(ready.encode_image(hit.path)[0] @ expected)
        assert hit.score == pytest.approx(cosine, abs=1e-3)
    by_id = index.search([Term(2, text="red"), Term(-0.5, text="white"), Term(1, id="b/05.png")],
                         k=20)  # fmt: skip
    assert [hit.id for hit in by_id.hits] == [hit.id for hit in found.hits]
    with pytest.raises(UsageError, match="cancel out"):
        index.search([Term(1, text="red"), Term(-1, text="red")])


def test_pages_of_photographs_like_one_have_each_once(index: Index) -> None:
    whole = index.similar("a/00.png", k=11)
    pages = [index.similar("a/00.png", k=4, offset=start).hits for start in (0, 4, 8)]
    ids = [hit.id for page in pages for hit in page]
    assert ids == [hit.id for hit in whole.hits] and len(set(ids)) == 11
    assert "a/00.png" not in ids
    with pytest.raises(DataError, match="no photograph 'gone'"):
        index.similar("gone")


def test_filters(tmp_path: Path, model: Path) -> None:
    photos = tmp_path / "dated"
    exif = Image.Exif()
    for i, (folder, day) in enumerate(
        [("Italy/Rome", "2023:12:31 23:59:59"), ("Italy", "2024:01:01 00:00:00"),
         ("Italyx", "2024:06:30 12:00:00"), ("", None)]
    ):  # fmt: skip
        exif.get_ifd(0x8769)[0x9003] = day or ""
        (photos / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 10), "red").save(photos / folder / f"{i}.jpg", exif=exif)
    index = lateen.index(photos, model, tmp_path / "index")

    def found(**given: str) -> set[str]:
        result = index.search("red", filters=Filters(**given))
        assert result.among == len(result.hits)
        return {hit.path.name for hit in result.hits}

    assert found(since="2024") == {"1.jpg", "2.jpg"}
    assert found(until="2023") == {"0.jpg"}
    assert found(since="2024-01-01", until="2024-01") == {"1.jpg"}
    assert found(folder="Italy") == {"0.jpg", "1.jpg"}
    assert found(folder="Italy/Rome/") == {"0.jpg"}
    assert found(where="width > 21") == {"2.jpg", "3.jpg"}
    assert found(folder="Italy", where="width > 20 OR width < 5") == {"1.jpg"}
    assert found(where="taken IS NULL") == {"3.jpg"}
    assert found(folder="nowhere") == set()
    assert index.folders() == [("Italy", 2), ("Italy/Rome", 1), ("Italyx", 1)]
    assert index.dates() == ("2023-12-31", "2024-06-30")
    with pytest.raises(UsageError, match=r"No field named widht.*The columns are: id, "):
        found(where="widht > 3")
    with pytest.raises(UsageError, match="the condition cannot be used"):
        found(where="width > > 3")


def test_a_tables_columns_and_captions_come_with_its_photographs(
    tmp_path: Path, model: Path
) -> None:
    root = album(tmp_path / "album")
    settle(root)
    rows = [json.loads(line) for line in (root / "train.jsonl").read_text().splitlines()]
    for i, row in enumerate(rows):
        row |= {"stars": i % 6, "price": i / 2, "sold": i % 2 == 0, "day": f"2024-01-{i + 1:02d}"}
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    index = lateen.index(root / "train.jsonl", model, tmp_path / "index", captions=["caption"])
    found = index.search("red", filters=Filters(where="stars >= 4 AND sold AND price < 6"), k=50)
    assert {hit.id for hit in found.hits} == {"004.png", "010.png"}
    assert index.photo("010.png").about["captions"] == rows[10]["caption"]
    assert index.search("red", filters=Filters(where="day > timestamp '2024-01-20'")).among == 4
    rows[10]["caption"] = ["something else"]
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    again = update_index(
        tmp_path / "index", Contents.of(root / "train.jsonl", captions=["caption"]),
        GivenModel(model),
    )  # fmt: skip
    assert (again.changed, again.added) == (1, 0)
    index.refresh()
    assert index.photo("010.png").about["captions"] == ["something else"]
    (root / "other.jsonl").write_text(
        "".join(json.dumps({**row, "width": 3}) + "\n" for row in rows)
    )
    with pytest.raises(UsageError, match="a column 'width', and every index has one"):
        Contents.of(root / "other.jsonl")


def test_images_in_shards_and_in_tables_are_found_and_can_be_looked_at(
    tmp_path: Path, model: Path
) -> None:
    import tarfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    root = album(tmp_path / "album", count=6)
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for path in sorted((root / "images").iterdir()):
            tar.add(path, path.name)
    data = [p.read_bytes() for p in sorted((root / "images").iterdir())]
    table = pa.table({"image": [{"bytes": d, "path": f"{i}.png"} for i, d in enumerate(data)],
                      "caption": [f"number {i}" for i in range(6)]})  # fmt: skip
    pq.write_table(table, tmp_path / "set.parquet")
    settle(tmp_path)
    for source in ("shard.tar", "set.parquet"):
        index = lateen.index(tmp_path / source, model, tmp_path / f"{source}-index")
        [hit] = index.search("red", k=1).hits
        assert hit.score > 0.7
        shown = index.image(hit.id).read()
        assert shown == data[0] if source == "shard.tar" else shown[:3] == b"\xff\xd8\xff"
        again = update_index(index.place, Contents.of(tmp_path / source), GivenModel(model))
        assert (again.added, again.changed, again.count) == (0, 0, 6)


def test_a_query_bank_orders_sentences_and_not_pictures(tmp_path: Path, photos: Path) -> None:
    from lateen.indexing.embeddings import build_bank

    folder = saved_model(tmp_path / "with-bank")
    root = album(tmp_path / "album")
    build_bank(folder, root / "train.jsonl", images=root / "images")
    index = lateen.index(photos, folder, tmp_path / "index")
    found = index.search("red", k=12, cut=False)
    ready = open_model(folder)
    bank = ready.query_bank
    assert bank is not None
    for hit in found.hits:
        hubness = float(bank.image_hubness(ready.encode_image(hit.path)))
        assert hit.adjusted == pytest.approx(hit.score - hubness, abs=2e-3)
    adjusted = [hit.adjusted for hit in found.hits]
    assert adjusted == sorted(adjusted, reverse=True)
    assert all(hit.adjusted is None for hit in index.search("red", bank=False, cut=False).hits)
    assert all(hit.adjusted is None for hit in index.similar("a/00.png").hits)
    lengths = np.linalg.norm(list(everything(tmp_path / "index").values()), axis=1)
    np.testing.assert_allclose(lengths, lengths[0], rtol=1e-4)  # for the ANN index
    with pytest.raises(ModelError, match="was made with the query bank"):
        update(tmp_path / "index", photos, folder, bank="none")


def test_what_is_unlikely_is_left_out_and_said(tmp_path: Path, photos: Path) -> None:
    folder = calibrated_model(tmp_path / "sure", -20.0, images=100)
    index = lateen.index(photos, folder, tmp_path / "index")
    found = index.search("red", k=12)
    cut = 4 / 512
    assert found.cut_off == pytest.approx(cut)
    everything = index.search("red", k=12, cut=False)
    assert len(everything.hits) == 12 and 0 < len(found.hits) < 12
    for hit in everything.hits:
        expected = 1 / (1 + np.exp(-(40 * hit.score - 20)))
        assert hit.probability == pytest.approx(expected, abs=1e-6)
        assert (hit in found.hits) == (expected >= cut)
    nothing = index.search("red", cut=0.99999)
    assert nothing.nothing and not nothing.hits
    assert nothing.nearest is not None and nothing.nearest.id == everything.hits[0].id
    assert not index.search("red", cut=0.99999, offset=5).nothing  # the end of what was found
    pictures = index.similar("a/00.png", k=11)
    assert len(pictures.hits) == 11 and pictures.hits[0].probability is None


def test_labels_are_those_of_classify(index: Index, model: Path, photos: Path) -> None:
    labels = ["red thing", "blue thing", "white thing"]
    labelling = lateen.classify(model, photos, labels)
    for found in index.classify(labels, k=20):
        alone = labelling.of(found.label)
        assert found.count == len(found.hits) == len(alone)
        assert [hit.confidence for hit in found.hits] == pytest.approx(
            [each.confidence for each in alone], abs=1e-3
        )
    some = index.classify(labels, filters=Filters(folder="a"))
    assert sum(each.count for each in some) == 6
    assert sum(each.count for each in index.classify(labels, filters=Filters(folder="no"))) == 0
    with pytest.raises(UsageError, match="one label is too few"):
        index.classify(["red"])


def test_a_large_index_is_searched_by_ann_and_says_how_well(
    tmp_path: Path, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(300):
        photo(photos / "many" / f"{i}.png", list(COLOURS)[i % 6], seed=100 + i)
    settle(photos)
    exact = lateen.index(photos, model, tmp_path / "exact")
    for module in (building, gallery, sys.modules["lateen.indexing.photo_index"]):
        monkeypatch.setattr(module, "MOST", 100)
    index = lateen.index(photos, model, tmp_path / "ann")
    assert index.about.ann is not None and index.about.ann["recall"] >= 0.95
    assert index.about.ann["photographs"] == len(index) == 312
    assert not (tmp_path / "ann" / "snapshot").exists()
    for query in ("red", "white and black"):
        fast, whole = index.search(query, k=10), exact.search(query, k=10)
        scores = [hit.score for hit in whole.hits]
        assert [hit.score for hit in fast.hits] == pytest.approx(scores, abs=5e-3)
    filtered = index.search("red", k=10, filters=Filters(folder="a"))
    assert filtered.among == 6 and len(filtered.hits) == 6
    like = index.similar("a/00.png", k=5)
    assert "a/00.png" not in {hit.id for hit in like.hits} and len(like.hits) == 5
    assert index.photo("a/00.png").path == photos / "a" / "00.png"


# -- what survives ---------------------------------------------------------------------------------


class Killed(BaseException):
    """What a test stops an update with."""


STEPS: list[tuple[Any, str]] = [
    (PhotoTable, "create"), (PhotoTable, "write_about"), (PhotoTable, "write"),
    (PhotoTable, "write_skipped"), (PhotoTable, "remove"), (PhotoTable, "tidy"),
    (gallery.Snapshot, "write"),
]  # fmt: skip


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(len(STEPS)))
def test_an_update_that_ends_anywhere_is_gone_on_with(
    tmp_path: Path, photos: Path, model: Path, step: int, after: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    place = tmp_path / "index"
    monkeypatch.setattr(building, "_CHUNK", 4)
    (photos / "bad.png").write_bytes(b"no picture")
    settle(photos)
    if step not in (0, 1):  # something is there already, and changes
        update(place, photos, model)
        photo(photos / "new.png", "red", seed=91)
        photo(photos / "b" / "03.png", "white", seed=77)
        (photos / "b" / "05.png").unlink()
        (photos / "a" / "00.png").rename(photos / "moved.png")
        settle(photos)
    kind, name = STEPS[step]
    plain: Callable[..., Any] = getattr(kind, name)

    def stopped(*args: Any, **given: Any) -> None:
        if after:
            plain(*args, **given)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(kind, name, stopped)
        with pytest.raises(Killed):
            update(place, photos, model)
    done = update(place, photos, model)
    assert [row["id"] for row in done.unreadable] == ["bad.png"]
    update(tmp_path / "whole", photos, model)
    assert everything(place) == everything(tmp_path / "whole")
    assert [hit.id for hit in Index.open(place).search("red").hits] == [
        hit.id for hit in Index.open(tmp_path / "whole").search("red").hits
    ]


_SLOW = """
import sys, time
import toys
from lateen.indexing import building
plain = toys.ColourEncoder.encode
def slow(self, prepared):
    time.sleep(0.03)
    return plain(self, prepared)
toys.ColourEncoder.encode = slow
building._CHUNK = 3
from lateen.cli import main
print("begun", flush=True)
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_kill_9_loses_nothing_and_doubles_nothing(
    tmp_path: Path, photos: Path, model: Path
) -> None:
    for i in range(60):
        photo(photos / "many" / f"{i}.png", list(COLOURS)[i % 6], seed=100 + i)
    settle(photos)
    place = tmp_path / "index"
    tests = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), *sys.path])}
    words = ["index", str(photos), "--model", str(model), "--out", str(place)]
    kills = 0
    for wait in (0.6, 0.9, 1.2):
        process = subprocess.Popen(
            [sys.executable, "-c", _SLOW, *words], stdout=subprocess.PIPE, env=environment
        )
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        deadline = time.time() + 60
        while not (place / "photos.lance").is_dir() and time.time() < deadline:
            time.sleep(0.01)
        time.sleep(wait)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert kills  # at least one was still at work
    update(place, photos, model)
    update(tmp_path / "whole", photos, model)
    assert everything(place) == everything(tmp_path / "whole")


# -- what is refused -------------------------------------------------------------------------------


def test_another_models_query_is_refused(index: Index, tmp_path: Path, photos: Path) -> None:
    other = open_model(saved_model(tmp_path / "other"))
    with torch.no_grad():
        other.logit_scale.fill_(3.0)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="is an index of another model"):
        Index.open(index.place, model=tmp_path / "other")
    with pytest.raises(ModelError, match=r"another model .*--overwrite"):
        update(Path(index.place), photos, tmp_path / "other")
    # The model itself was changed where it lies.
    shutil.copytree(tmp_path / "other", tmp_path / "model", dirs_exist_ok=True)
    with pytest.raises(ModelError, match="is an index of another model"):
        Index.open(index.place)
    update(Path(index.place), photos, tmp_path / "model", overwrite=True)
    assert len(Index.open(index.place).search("red").hits) == 12


def test_an_index_of_another_folder_is_not_emptied(
    index: Index, tmp_path: Path, photos: Path, model: Path
) -> None:
    photo(tmp_path / "elsewhere" / "x.png", "red")
    with pytest.raises(UsageError, match=r"is an index of .*photos"):
        update(Path(index.place), tmp_path / "elsewhere", model)
    photos.rename(tmp_path / "renamed")  # with its photographs, all of them known
    done = update(Path(index.place), tmp_path / "renamed", model)
    assert (done.added, done.changed, done.removed, done.count) == (0, 0, 0, 12)
    hit = Index.open(index.place).search("red", k=1).hits[0]
    assert hit.path.is_file()


def test_two_writers_a_foreign_folder_and_another_format(
    index: Index, tmp_path: Path, photos: Path, model: Path
) -> None:
    photo(photos / "more.png", "red")
    with folder_lock(Path(index.place)), pytest.raises(BusyError, match="another lateen process"):
        update(Path(index.place), photos, model)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(StoreError, match="is not empty and not an index"):
        update(tmp_path / "full", photos, model)
    with pytest.raises(StoreError, match="there is no index"):
        Index.open(tmp_path / "full")
    table = PhotoTable(index.place)
    about = json.loads(table.about() or "")
    table.write_about(json.dumps({**about, "format": 99}))
    with pytest.raises(StoreError, match="of format 99, and this lateen reads 1"):
        Index.open(index.place)


def test_a_full_disk_is_said_and_a_later_call_goes_on(
    tmp_path: Path, photos: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "index"

    def full(*_: object) -> None:
        raise OSError("LanceError(IO): Generic LocalFileSystem error: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(PhotoTable, "_upsert", full)
        with pytest.raises(LateenError, match="the disk is full"):
            update(place, photos, model)
    assert update(place, photos, model).count == 12


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_a_folder_without_rights(tmp_path: Path, photos: Path, model: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(LateenError, match=r"cannot be made|cannot be used"):
        update(tmp_path / "locked" / "index", photos, model)


def test_a_link_in_a_circle_is_walked_once(tmp_path: Path, photos: Path, model: Path) -> None:
    (photos / "a" / "again").symlink_to(photos, target_is_directory=True)
    assert update(tmp_path / "index", photos, model).count == 12


def test_a_photograph_that_is_gone_is_still_a_row_until_the_next_call(
    index: Index, photos: Path
) -> None:
    (photos / "a" / "00.png").unlink()
    with pytest.raises(OSError, match="No such file"):
        index.image("a/00.png").read()
    assert index.photo("a/00.png").path == photos / "a" / "00.png"


def test_readers_see_what_writers_add(index: Index, photos: Path, model: Path) -> None:
    assert len(index) == 12
    photo(photos / "more.png", "red", seed=5)
    update(Path(index.place), photos, model)
    assert len(index) == 12
    index.refresh()
    assert len(index) == 13 and index.photo("more.png").id == "more.png"


def test_a_model_that_few_photographs_calibrated_leaves_nothing_out(
    tmp_path: Path, photos: Path
) -> None:
    folder = calibrated_model(tmp_path / "unsure", -60.0, images=6)
    found = lateen.index(photos, folder, tmp_path / "index").search("red")
    assert found.cut_off is None and len(found.hits) == 12
    assert found.hits[0].probability is None
