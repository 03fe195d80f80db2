from __future__ import annotations

import io
import logging
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled_toys import (
    benchmark_folder,
    cached_on_hub,
    class_folder,
    picture,
    rows,
    shard,
)

from lateen.data.images import decode_image
from lateen.data.labels import SETS, LabelledImages, open_labelled
from lateen.data.prompts import TEMPLATES
from lateen.data.samples import Sample
from lateen.errors import DataError, UsageError

COLOURS = ["red", "green", "blue"]
PICTURES = [("red", 0), ("green", 1), ("blue", 2), ("blue", 2)]


@pytest.fixture(autouse=True)
def _own_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def named(found: LabelledImages) -> dict[str, str]:
    """The class of each image, in words."""
    return {sample: found.names[label] for sample, label in found.labels.items()}


def seen(found: LabelledImages) -> dict[str, str]:
    """The colour that each image has."""
    strongest = {0: "red", 1: "green", 2: "blue"}
    result = {}
    for item in found.dataset:
        assert isinstance(item, Sample)
        assert item.image is not None
        pixel: Any = decode_image(item.image).getpixel((3, 3))
        result[item.id] = strongest[max(range(3), key=lambda i: pixel[i])]
    return result


def same(found: LabelledImages) -> bool:
    return named(found) == seen(found) and len(found.labels) > 0


# -- class folders ----------------------------------------------------------------------------


def test_a_class_folder_is_named_by_its_folders(tmp_path: Path) -> None:
    found = open_labelled(class_folder(tmp_path, ["red", "light_blue", "green"][:1] + COLOURS[1:]))
    assert same(found)
    assert found.names == ("blue", "green", "red")
    assert found.named_by == "the labels of the data"
    assert (found.metric, found.set, found.split) == ("top1", None, None)
    assert found.templates == TEMPLATES
    assert not found.verbatim


def test_folders_with_underscores_become_words(tmp_path: Path) -> None:
    (tmp_path / "hot_dog").mkdir()
    (tmp_path / "hot_dog" / "a.png").write_bytes(picture("red"))
    class_folder(tmp_path, ["blue"])
    assert open_labelled(tmp_path).names == ("blue", "hot dog")


def test_folders_of_splits_are_splits(tmp_path: Path) -> None:
    class_folder(tmp_path / "train", COLOURS)
    class_folder(tmp_path / "val", COLOURS, count=1)
    found = open_labelled(tmp_path)
    assert (found.split, found.splits) == ("val", ("train", "val"))
    assert len(found.labels) == 3
    assert len(open_labelled(tmp_path, split="train").labels) == 9
    with pytest.raises(UsageError, match=r"no split 'test'.*train, val"):
        open_labelled(tmp_path, split="test")
    with pytest.raises(UsageError, match="has no splits"):
        open_labelled(tmp_path / "val", split="test")


def test_imagenet_is_judged_on_its_validation_part(tmp_path: Path) -> None:
    for split in ("train", "val", "test"):
        class_folder(tmp_path / split, ["red"], count=1)
        (tmp_path / split / "red").rename(tmp_path / split / "n02106662")
    assert open_labelled(tmp_path, name="imagenet").split == "val"
    assert open_labelled(tmp_path, name="imagenet-sketch").split == "test"


def wordnet_folder(root: Path) -> Path:
    class_folder(root, ["red", "blue"])
    (root / "red").rename(root / "n02099601")
    (root / "blue").rename(root / "n01440764")
    return root


def test_folders_of_wordnet_ids_are_named_as_imagenets(tmp_path: Path) -> None:
    found = open_labelled(wordnet_folder(tmp_path))
    assert found.names == ("tench", "golden retriever")
    assert named(found)["n02099601/0.png"] == "golden retriever"
    assert found.named_by == "lateen's names of imagenet"


def test_a_set_brings_all_its_classes_unless_it_is_of_a_part(tmp_path: Path) -> None:
    folder = wordnet_folder(tmp_path)
    whole = open_labelled(folder, name="imagenet")
    assert len(whole.names) == 1000
    assert named(whole)["n02099601/0.png"] == "golden retriever"
    assert open_labelled(folder, name="imagenet-o").names == ("tench", "golden retriever")


def test_numbered_folders_count_the_classes(tmp_path: Path) -> None:
    class_folder(tmp_path, ["red", "blue"])
    (tmp_path / "red").rename(tmp_path / "00014")
    (tmp_path / "blue").rename(tmp_path / "2")
    found = open_labelled(tmp_path, name="gtsrb")
    assert named(found)["00014/0.png"] == "stop"
    assert named(found)["2/0.png"] == "speed limit 50 km/h"
    with pytest.raises(DataError, match=r"label 00014 beyond the classes of cifar10.*0 to 9"):
        open_labelled(tmp_path, name="cifar10")
    with pytest.raises(DataError, match=r"which number is which.*food101 differs"):
        open_labelled(tmp_path, name="food101")


def test_a_count_is_the_class_of_that_count_not_its_number(tmp_path: Path) -> None:
    class_folder(tmp_path, ["red", "blue"])
    (tmp_path / "red").rename(tmp_path / "3")
    (tmp_path / "blue").rename(tmp_path / "10")
    found = open_labelled(tmp_path, name="clevr-counts")
    assert {named(found)["3/0.png"], named(found)["10/0.png"]} == {"three", "ten"}


@pytest.mark.parametrize(
    ("name", "folder", "words"),
    [
        ("eurosat", "AnnualCrop", "annual crop land"),
        ("caltech101", "BACKGROUND_Google", "background"),
        ("sun397", "church_outdoor", "outdoor church"),
        ("pets", "american_pit_bull_terrier", "American pit bull terrier"),
        ("cifar100", "cra", "crab"),
        ("imagenet", "tench, Tinca tinca", "tench"),
        ("imagenet", "English springer", "English springer spaniel"),
        ("dtd", "polka-dotted", "polka-dotted"),
    ],
)
def test_published_spellings_are_known(tmp_path: Path, name: str, folder: str, words: str) -> None:
    class_folder(tmp_path, ["red"])
    (tmp_path / "red").rename(tmp_path / folder)
    other = SETS[name].names[5].words.replace(" ", "_")
    (tmp_path / other).mkdir()
    (tmp_path / other / "a.png").write_bytes(picture("red"))
    assert named(open_labelled(tmp_path, name=name))[f"{folder}/0.png"] == words


def test_folders_that_are_not_the_sets_classes_are_an_error(tmp_path: Path) -> None:
    class_folder(tmp_path, COLOURS)
    with pytest.raises(DataError, match=r"not one of the 3 classes.*'blue'.*the classes of dtd"):
        open_labelled(tmp_path, name="dtd")
    class_folder(tmp_path / "some", COLOURS)
    (tmp_path / "some" / "red").rename(tmp_path / "some" / "banded")
    with pytest.raises(DataError, match=r"class 'blue', which is not among the classes of dtd"):
        open_labelled(tmp_path / "some", name="dtd")


def test_a_file_of_class_names_comes_first(tmp_path: Path) -> None:
    folder = class_folder(tmp_path / "images", COLOURS)
    file = tmp_path / "classes.txt"
    file.write_text("a tomato\tred\nGREEN\na sky\tblue\tazure\nnothing\n\n")
    found = open_labelled(folder, classes=file)
    assert found.names == ("a tomato", "GREEN", "a sky", "nothing")
    assert named(found)["blue/0.png"] == "a sky"
    assert found.named_by == str(file)
    file.write_text("red\ngreen\n")
    with pytest.raises(DataError, match=r"class 'blue', which is not among the classes in"):
        open_labelled(folder, classes=file)
    file.write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"not one of the 3 classes.*behind a tab"):
        open_labelled(folder, classes=file)
    file.write_text("red\ngreen\nblue\nred\n")
    with pytest.raises(DataError, match=r"'red' is named twice .* lines 1 and 4"):
        open_labelled(folder, classes=file)


def test_one_class_or_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has one class, 'red', and one alone is always right"):
        open_labelled(class_folder(tmp_path / "one", ["red"]))
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").write_bytes(picture("red"))
    with pytest.raises(DataError, match="no class folders"):
        open_labelled(tmp_path / "flat")


def test_images_outside_class_folders_have_no_label(tmp_path: Path) -> None:
    class_folder(tmp_path, COLOURS)
    (tmp_path / "stray.png").write_bytes(picture("red"))
    found = open_labelled(tmp_path)
    assert found.unlabelled == 1
    assert "stray.png" not in found.labels


def test_what_is_not_there_or_not_labelled_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not there"):
        open_labelled(tmp_path / "absent")
    (tmp_path / "a.csv").write_text("image,label\n")
    with pytest.raises(DataError, match="no set of labelled images"):
        open_labelled(tmp_path / "a.csv")


# -- shards -----------------------------------------------------------------------------------


def test_shards_as_clip_benchmark_publishes_them(tmp_path: Path) -> None:
    folder = benchmark_folder(tmp_path / "wds", COLOURS, test=PICTURES, train=PICTURES[:2])
    found = open_labelled(folder)
    assert same(found)
    assert found.names == tuple(COLOURS)
    assert (found.split, found.splits) == ("test", ("test", "train"))
    assert found.templates == ("a {} picture",)
    assert found.verbatim
    assert found.named_by == "classnames.txt"
    assert len(open_labelled(folder, split="train").labels) == 2
    assert same(open_labelled(folder / "test"))
    assert same(open_labelled(str(folder / "test" / "{0..1}.tar")))


def test_a_class_without_a_name_keeps_its_place(tmp_path: Path) -> None:
    """As the fourth of CLEVR's distances in CLIP_benchmark's file."""
    folder = benchmark_folder(tmp_path, ["near", "", "far"], test=[("red", 2), ("blue", 0)])
    assert named(open_labelled(folder)) == {"s0000000": "far", "s0000001": "near"}


def test_labels_beyond_the_class_names_are_an_error(tmp_path: Path) -> None:
    folder = benchmark_folder(tmp_path, COLOURS, test=[("red", 0), ("blue", 3)])
    with pytest.raises(DataError, match=r"label 3 beyond the classes in .*classnames.txt.*0 to 2"):
        open_labelled(folder)


def test_a_set_of_another_size_is_an_error(tmp_path: Path) -> None:
    folder = benchmark_folder(tmp_path, COLOURS, test=PICTURES)
    with pytest.raises(DataError, match="names 3 classes, and cifar10 has 10"):
        open_labelled(folder, name="cifar10")


def test_shards_without_names_take_the_sets(tmp_path: Path) -> None:
    shard(tmp_path / "0.tar", [("red", 9), ("blue", 0)], "JPEG")
    found = open_labelled(tmp_path, name="cifar10")
    assert named(found) == {"s0000000": "truck", "s0000001": "airplane"}
    bare = open_labelled(tmp_path)
    assert bare.names == tuple(map(str, range(10)))
    assert bare.named_by == ""


def test_a_shard_that_is_cut_keeps_its_whole_samples(tmp_path: Path) -> None:
    path = shard(tmp_path / "0.tar", PICTURES)
    with tarfile.open(path) as tar:
        cut = tar.getmembers()[4].offset_data + 100  # within the third picture
    path.write_bytes(path.read_bytes()[:cut])
    found = open_labelled(tmp_path, name="cifar10")
    whole = {item.id for item in found.dataset if isinstance(item, Sample)}
    assert whole == set(found.labels) == {"s0000000", "s0000001"}
    assert len(list(found.dataset)) == 3  # the one that is cut is recorded


def test_shards_without_labels_or_with_texts_for_labels_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds 'cat', which is no number"):
        open_labelled(shard(tmp_path / "a" / "0.tar", [("red", "cat")]))  # type: ignore[list-item]
    (tmp_path / "b").mkdir()
    (tmp_path / "a.png").write_bytes(picture("red"))
    with tarfile.open(tmp_path / "b" / "0.tar", "w") as tar:
        tar.add(tmp_path / "a.png", "a.png")
    with pytest.raises(DataError, match=r"no \.cls files"):
        open_labelled(tmp_path / "b")


def test_shards_on_the_hub_bring_the_set_with_their_name(tmp_path: Path) -> None:
    names = [each.words for each in SETS["cifar10"].names]
    folder = benchmark_folder(tmp_path / "up", names, test=[("red", 0), ("blue", 3)])
    cached_on_hub(tmp_path / "hub", "clip-benchmark/wds_vtab-cifar10", folder)
    found = open_labelled("clip-benchmark/wds_vtab-cifar10")
    assert found.set is SETS["cifar10"]
    assert named(found) == {"s0000000": "airplane", "s0000001": "cat"}


def test_shards_of_which_some_are_not_in_the_cache_are_an_error(tmp_path: Path) -> None:
    folder = benchmark_folder(tmp_path / "up", COLOURS, test=PICTURES)
    (folder / "test" / "1.tar").unlink()
    cached_on_hub(tmp_path / "hub", "owner/wds_colours", folder)
    with pytest.raises(DataError, match=r"owner/wds_colours cannot be loaded.*hf auth login"):
        open_labelled("owner/wds_colours")


def test_a_set_that_cannot_be_reached_says_how_to_get_it() -> None:
    message = r"ILSVRC/imagenet-1k.*https://huggingface.co/datasets/ILSVRC/imagenet-1k.*hf auth"
    with pytest.raises(DataError, match=message):
        open_labelled("ILSVRC/imagenet-1k")


# -- rows -------------------------------------------------------------------------------------


def test_rows_saved_by_datasets(tmp_path: Path) -> None:
    parts = {"train": rows(PICTURES[:2], COLOURS), "test": rows(PICTURES, COLOURS)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    found = open_labelled(tmp_path / "saved")
    assert same(found)
    assert found.names == tuple(COLOURS)
    assert (found.split, found.splits) == ("test", ("train", "test"))
    again = open_labelled(tmp_path / "saved")
    assert again.dataset.fingerprint == found.dataset.fingerprint
    assert again.key == found.key != open_labelled(tmp_path / "saved", split="train").key


def test_parquet_as_the_hub_has_it(tmp_path: Path) -> None:
    (tmp_path / "up" / "data").mkdir(parents=True)
    rows(PICTURES, COLOURS).to_parquet(tmp_path / "up/data/test-00000-of-00001.parquet")
    rows(PICTURES[:2], COLOURS).to_parquet(tmp_path / "up/data/train-00000-of-00001.parquet")
    found = open_labelled(tmp_path / "up")
    assert same(found)
    assert (found.split, len(found.labels)) == ("test", 4)
    one = open_labelled(tmp_path / "up/data/test-00000-of-00001.parquet")
    assert same(one)
    assert one.split is None


def test_class_labels_get_the_words_of_their_set(tmp_path: Path) -> None:
    names = [each.spellings[0] if each.spellings else each.words for each in SETS["eurosat"].names]
    rows([("red", 0), ("blue", 1)], names).save_to_disk(tmp_path / "e")
    found = open_labelled(tmp_path / "e", name="eurosat")
    assert named(found) == {"0": "annual crop land", "1": "forest"}
    assert open_labelled(tmp_path / "e").names[0] == "AnnualCrop"


def test_a_copy_with_other_words_in_the_same_order_is_the_set(tmp_path: Path) -> None:
    names = [each.words for each in SETS["svhn"].names]
    names[3] = "drei"
    rows([("red", 3), ("blue", 1)], names).save_to_disk(tmp_path / "s")
    assert named(open_labelled(tmp_path / "s", name="svhn"))["0"] == "three"
    names[5], names[6] = names[6], names[5]
    rows([("red", 3), ("blue", 1)], names).save_to_disk(tmp_path / "t")
    with pytest.raises(DataError, match="class 'drei'"):
        open_labelled(tmp_path / "t", name="svhn")


def test_labels_that_are_texts_or_bare_numbers(tmp_path: Path) -> None:
    rows([("red", "warm"), ("blue", "cold")]).save_to_disk(tmp_path / "t")
    assert named(open_labelled(tmp_path / "t")) == {"0": "warm", "1": "cold"}
    rows([("red", 0), ("blue", 9)]).save_to_disk(tmp_path / "n")
    assert named(open_labelled(tmp_path / "n", name="cifar10"))["1"] == "truck"
    rows([("red", True), ("blue", False)]).save_to_disk(tmp_path / "b")
    assert open_labelled(tmp_path / "b", name="pcam").labels == {"0": 1, "1": 0}


def test_rows_without_a_label_are_left_out(tmp_path: Path) -> None:
    rows([("red", 0), ("blue", -1), ("green", 1)], COLOURS).save_to_disk(tmp_path / "some")
    found = open_labelled(tmp_path / "some")
    assert found.unlabelled == 1
    assert set(found.labels) == {"0", "2"}
    rows([("red", -1), ("blue", -1)], COLOURS).save_to_disk(tmp_path / "none")
    with pytest.raises(DataError, match=r"not one image .* has a label.*another --split"):
        open_labelled(tmp_path / "none")


def test_the_column_of_labels(tmp_path: Path) -> None:
    coarse = ["warm", "cold", "cold", "cold"]
    table = rows(PICTURES, COLOURS, image="img", label="fine_label", coarse_label=coarse)
    table.save_to_disk(tmp_path / "two")
    assert open_labelled(tmp_path / "two").names == tuple(COLOURS)
    assert open_labelled(tmp_path / "two", column="coarse_label").names == ("cold", "warm")
    with pytest.raises(DataError, match=r"no column 'coarse'.*Did you mean 'coarse_label'"):
        open_labelled(tmp_path / "two", column="coarse")
    rows(PICTURES, label="weight").save_to_disk(tmp_path / "other")
    with pytest.raises(DataError, match="no column of labels"):
        open_labelled(tmp_path / "other")
    rows([("red", [0]), ("blue", [1, 2])]).save_to_disk(tmp_path / "lists")
    with pytest.raises(DataError, match="neither numbers nor texts"):
        open_labelled(tmp_path / "lists")
    datasets.Dataset.from_dict({"label": [0, 1]}).save_to_disk(tmp_path / "blind")
    with pytest.raises(DataError, match="no column of images"):
        open_labelled(tmp_path / "blind")


# -- what a new user's data are like ----------------------------------------------------------


def test_samples_of_one_name_in_two_shards_each_have_their_label(tmp_path: Path) -> None:
    """Shards that each number their samples from 0: the second's are other pictures."""
    shard(tmp_path / "0.tar", [("red", 0), ("green", 1)])
    shard(tmp_path / "1.tar", [("blue", 2)])
    (tmp_path / "classnames.txt").write_text("red\ngreen\nblue\n")
    found = open_labelled(tmp_path)
    assert list(named(found).values()) == ["red", "green", "blue"]
    assert (found.duplicates, found.unlabelled) == (0, 0)


def test_unlabelled_samples_are_counted_beside_labels_without_image(tmp_path: Path) -> None:
    members = {
        "a.png": picture("red"), "a.cls": b"0", "b.png": picture("red"), "c.cls": b"1",
        "d.png": picture("green"), "d.cls": b"1",
    }  # fmt: skip
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    (tmp_path / "classnames.txt").write_text("red\ngreen\n")
    assert open_labelled(tmp_path).unlabelled == 1


def test_class_folders_without_an_image_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("lateen").propagate = True
    root = class_folder(tmp_path, ["red", "green"])
    (root / "blue").mkdir()
    (root / "white").mkdir()
    (root / "white" / "notes.txt").write_text("to come")
    (root / ".hidden").mkdir()
    with caplog.at_level(logging.WARNING, logger="lateen"):
        found = open_labelled(root)
    assert found.empty == ("blue", "white")
    assert found.names == ("green", "red")
    assert "2 class folders have no image: blue, white" in caplog.text


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_files_without_a_class_name(tmp_path: Path, content: str) -> None:
    folder = benchmark_folder(tmp_path / "wds", COLOURS, test=PICTURES)
    (folder / "classnames.txt").write_text(content)
    file = tmp_path / "names.txt"
    file.write_text(content)
    for options in ({}, {"classes": file}):
        with pytest.raises(DataError, match=r"names\.txt names no class"):
            open_labelled(folder, **options)
    with pytest.raises(DataError, match=r"No such file.*Check the path"):
        open_labelled(folder, classes=tmp_path / "absent.txt")


@pytest.mark.parametrize("form", ["struct", "bytes"])
def test_parquet_that_datasets_did_not_write(tmp_path: Path, form: str) -> None:
    data = [picture(colour, i) for i, (colour, _) in enumerate(PICTURES)]
    cells = [{"bytes": each, "path": None} for each in data] if form == "struct" else data
    labels = [colour for colour, _ in PICTURES]
    path = tmp_path / "test.parquet"
    pq.write_table(pa.table({"image": cells, "label": labels}), path)
    found = open_labelled(path)
    assert same(found)
    assert found.dataset.fingerprint == open_labelled(path).dataset.fingerprint


def test_splits_in_any_case_and_within_a_folder_of_the_archive(tmp_path: Path) -> None:
    for part, count in (("Train", 3), ("Test", 2)):
        class_folder(tmp_path / "set" / "set" / part, ["red", "blue"], count)
    found = open_labelled(tmp_path / "set")
    assert (found.split, found.splits, len(found.labels)) == ("Test", ("Test", "Train"), 4)
    assert len(open_labelled(tmp_path / "set", split="train").labels) == 6


def test_classes_are_told_with_their_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lateen")
    class_folder(tmp_path, ["red", "blue"], 2)
    (tmp_path / "red" / "1.png").unlink()
    open_labelled(tmp_path)
    assert "3 images in 2 of 2 classes: blue (2), red (1)" in caplog.text


def test_numbers_before_class_names_are_taken_away_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("001.Black_footed_Albatross", "002.Laysan_Albatross"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(picture("red"))
    assert open_labelled(tmp_path).names == ("Black footed Albatross", "Laysan Albatross")
    assert "'Black footed Albatross' for '001.Black_footed_Albatross'" in caplog.text
