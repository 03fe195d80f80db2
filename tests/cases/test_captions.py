"""Captions as people and programs write them: in tables, JSON and beside other columns."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from builders import samples, write_csv, write_tar
from commands import call, evaluated
from labelled_toys import picture
from PIL import Image
from toys import COLOURS, photo

from lateen.data import open_dataset

NAMES = list(COLOURS)


def sentences(number: int, count: int) -> list[str]:
    """Captions of the picture of that number."""
    colour = NAMES[number % len(NAMES)]
    wordings = (f"all {colour}, no. {number}", f"{colour} noise", f"a wall of {colour} paint",
                f"it's {colour} again", f"nothing but {colour}, {number} times")  # fmt: skip
    return list(wordings[:count])


def folder(root: Path, count: int) -> list[str]:
    """The names of so many pictures in ``images``."""
    names = [f"{number:02d}.png" for number in range(count)]
    for number, name in enumerate(names):
        photo(root / "images" / name, NAMES[number % len(NAMES)], seed=number)
    return names


def retrieval(
    capsys: pytest.CaptureFixture[str], model: Path, *words: object
) -> tuple[dict[str, Any], str]:
    """The result of the task, and what it warned of."""
    return evaluated(capsys, model, "retrieval", "--captions", *words)


def counts(result: dict[str, Any]) -> tuple[int, int, int]:
    return result["images"], result["captions"], result["skipped"]


SPEECH = {
    "one within a line": {3: '"Paint it white, she begged', 7: 'he named it "my yellow"'},
    "one at the end of a line": {3: '"Paint it white, she begged', 7: 'and yellow to finish "'},
    "several alone": {2: '"Blue!', 5: 'green? "', 6: '"no, red', 9: 'black" and so on'},
}


@pytest.mark.parametrize("spoken", SPEECH.values(), ids=SPEECH)
def test_quotation_marks_of_speech_are_text(
    spoken: dict[int, str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = folder(tmp_path, 12)
    texts = [spoken.get(number, f"plain {NAMES[number % 6]}") for number in range(12)]
    lines = ["image\tcaption", *(f"{n}\t{t}" for n, t in zip(names, texts, strict=True))]
    table = tmp_path / "said.tsv"
    table.write_text("\n".join(lines) + "\n")
    result, err = retrieval(capsys, model, table, "--images", tmp_path / "images")
    assert counts(result) == (12, 12, 0)
    first = min(spoken) + 2  # behind the header, from 1
    assert err.count("\n") == 1
    assert f"said.tsv: the quotation marks of {len(spoken)} lines are no quotes of CSV" in err
    assert f"the first in line {first})" in err
    read = samples(open_dataset(table, images=tmp_path / "images"))
    assert [sample.captions["caption"] for sample in read] == [(text,) for text in texts]


def test_a_quoted_caption_may_have_lines_and_delimiters(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = folder(tmp_path, 12)
    texts = [f"a {NAMES[number % 6]} picture" for number in range(12)]
    texts[4] = 'a poem, in "black":\nnight,\nand coal'
    table = write_csv(
        tmp_path / "poems.csv", [("image", "caption"), *zip(names, texts, strict=True)]
    )
    result, err = retrieval(capsys, model, table, "--images", tmp_path / "images")
    assert (*counts(result), err) == (12, 12, 0, "")
    read = samples(open_dataset(table, images=tmp_path / "images"))
    assert [sample.captions["caption"] for sample in read] == [(text,) for text in texts]


@pytest.mark.parametrize("write", [json.dumps, str], ids=["JSON", "Python"])
def test_a_list_in_a_cell_is_several_captions(
    write: Any, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = folder(tmp_path, 12)
    texts = [sentences(number, 5) for number in range(12)]
    lists = write_csv(
        tmp_path / "lists.csv",
        [("raw", "sentids", "split", "filename"),
         *((write(t), str([5 * i, 5 * i + 1]), "test", names[i]) for i, t in enumerate(texts))],
    )  # fmt: skip
    rows = write_csv(
        tmp_path / "rows.csv",
        [("filename", "raw"), *((names[i], text) for i, t in enumerate(texts) for text in t)],
    )
    found, err = retrieval(capsys, model, lists, "--images", tmp_path / "images")
    assert (*counts(found), err) == (12, 60, 0, "")
    same, _ = retrieval(capsys, model, rows, "--images", tmp_path / "images")
    assert {**found, "options": None} == {**same, "options": None}
    read = samples(open_dataset(lists, images=tmp_path / "images"))
    assert [sample.captions["raw"] for sample in read] == [tuple(t) for t in texts]


def hub_rows(*, ids: bool, named: bool = False) -> datasets.Dataset:
    """8 pictures with 3 captions each, a row for each caption."""
    table: dict[str, list[Any]] = {"image": [], "caption": []}
    for number in range(8):
        content = picture(NAMES[number % 6], seed=number)
        path = f"{number}.png" if named else None
        table["image"] += [{"bytes": content, "path": path}] * 3
        table["caption"] += sentences(number, 3)
    if ids:
        table["image_id"] = [number for number in range(8) for _ in range(3)]
    return datasets.Dataset.from_dict(table).cast_column("image", datasets.Image())


@pytest.mark.parametrize("ids", [True, False], ids=["with ids", "without ids"])
@pytest.mark.parametrize("form", ["saved", "rows.parquet"])
def test_a_row_for_each_caption_is_one_sample_for_each_image(
    form: str, ids: bool, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = hub_rows(ids=ids)
    datasets.disable_progress_bars()
    try:
        if form == "saved":
            table.save_to_disk(tmp_path / form)
        else:
            pq.write_table(table.with_format("arrow")[:], tmp_path / form)
    finally:
        datasets.enable_progress_bars()
    result, err = retrieval(capsys, model, tmp_path / form)
    assert (*counts(result), err) == (8, 24, 0, "")
    assert result["image_to_text"]["R@1"] > 0
    read = samples(open_dataset(tmp_path / form))
    assert [len(sample.captions["caption"]) for sample in read] == [3] * 8


def coco(path: Path, names: Iterable[str], image_id: Any, annotation_id: Any) -> Path:
    """A captions file whose ids are written by these functions, 5 captions an image."""
    images = [{"id": image_id(i), "file_name": name} for i, name in enumerate(names)]
    annotations = [
        {"id": 9 * i + j, "image_id": annotation_id(i), "caption": text}
        for i in range(len(images)) for j, text in enumerate(sentences(i, 5))
    ]  # fmt: skip
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


@pytest.mark.parametrize(
    ("image_id", "annotation_id"), [(int, str), (str, int), (int, int)],
    ids=["annotations as text", "images as text", "both as numbers"],
)  # fmt: skip
def test_a_number_and_its_text_are_the_same_image(
    image_id: Any, annotation_id: Any, model: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    names = folder(tmp_path, 12)
    table = coco(tmp_path / "captions.json", names, image_id, annotation_id)
    result, err = retrieval(capsys, model, table, "--images", tmp_path / "images")
    assert (*counts(result), err) == (12, 60, 0, "")
    read = samples(open_dataset(table, images=tmp_path / "images"))
    assert [sample.captions["caption"] for sample in read] == [
        tuple(sentences(number, 5)) for number in range(12)
    ]


def test_annotations_of_other_images_are_an_error(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = folder(tmp_path, 3)
    table = coco(tmp_path / "captions.json", names, int, lambda number: f"img-{number + 40}")
    code, out, err = call(
        capsys, "evaluate", model, "--task", "retrieval", "--captions", table,
        "--images", tmp_path / "images",
    )  # fmt: skip
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "not one of the 15 annotations in" in err
    assert "'img-40'" in err  # as annotations have it
    assert "id 0" in err  # as images have it


def downloaded(path: Path, count: int = 24, **more: Any) -> Path:
    """A shard as download tools write it, with all that they know of an image beside it."""
    files = []
    for number in range(count):
        colour, key = NAMES[number % 6], f"{number:08d}"
        buffer = io.BytesIO()
        Image.open(io.BytesIO(picture(colour, number))).save(buffer, "JPEG")
        fields = {"caption": f"{colour} number {number}", "url": f"http://a.example/{number}",
                  "key": key, "status": "success", "error_message": None, "width": 16,
                  "caption_model": f"writer-{number % 2}", "text_language": "en",
                  "title": f"{colour}_{number:04d}", **more}  # fmt: skip
        files += [(f"{key}.jpg", buffer.getvalue()), (f"{key}.txt", fields["caption"].encode()),
                  (f"{key}.json", json.dumps(fields).encode())]  # fmt: skip
    return write_tar(path, files)


def test_metadata_beside_captions_are_not_learned_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    downloaded(tmp_path / "00000.tar")
    (tmp_path / "recipe.yaml").write_text("data: {train: 00000.tar, holdout: 0.25}\n")
    words = ("run", tmp_path / "recipe.yaml", "--data.root", tmp_path, "--vision.encoder",
             "toys:colour_encoder", "--text.encoder", "toys:word_encoder", "--train.epochs", 1,
             "--train.batch", 6, "--head.dim", 8)  # fmt: skip
    code, _, err = call(capsys, *words, "--out", tmp_path / "run")
    assert code == 0
    texts = {
        json.loads((store / "manifest.json").read_text())["description"]["column"]
        for store in (tmp_path / "run" / "stores").iterdir()
    } - {None}
    assert texts == {"caption"}
    assert "00000.tar: caption (also there: " in err
    assert "title; choose with --data.captions)" in err
    chosen = ("--data.captions", "caption,title")
    code, _, err = call(capsys, *words, *chosen, "--out", tmp_path / "chosen")
    assert code == 0 and "captions of" not in err
