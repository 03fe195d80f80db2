from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders import is_fixed, jpeg, samples, skips, write_csv, write_images, write_jsonl

from lateen.data.samples import FileImage, Skip
from lateen.data.tables import Table
from lateen.errors import DataError


def captions(table: Table) -> dict[str, dict[str, tuple[str, ...]]]:
    return {sample.id: dict(sample.captions) for sample in samples(table)}


def reasons(table: Table) -> list[tuple[str, str, bool]]:
    """(last part of the source, reason, whether the sample is out)"""
    return [(skip.source.rsplit("/", 1)[-1], skip.reason, skip.sample) for skip in skips(table)]


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder with the images a.jpg and b.jpg."""
    return write_images(tmp_path, ["a.jpg", "b.jpg"])


def test_rows_of_one_image_are_one_sample_in_order_of_first_appearance(two: Path) -> None:
    rows = [["image", "caption"], ["b.jpg", "b1"], ["a.jpg", "a1"], ["b.jpg", " b2 "]]
    path = write_csv(two / "t.csv", rows)
    table = Table(path)
    assert table.name == str(path)
    assert table.columns == ("caption",)
    assert list(captions(table).items()) == [
        ("b.jpg", {"caption": ("b1", "b2")}),
        ("a.jpg", {"caption": ("a1",)}),
    ]
    assert samples(table)[0].image == FileImage(two / "b.jpg")
    assert is_fixed(table, lambda: Table(path))


def test_every_caption_column_is_kept_apart(two: Path) -> None:
    rows = [["id", "file_name", "raw", "short_llm", "long_llm", "url", "caption_id"],
            ["7", "a.jpg", "r", "s", "l", "http://x", "3"]]  # fmt: skip
    table = Table(write_csv(two / "t.csv", rows))
    assert captions(table) == {
        "a.jpg": {"raw": ("r",), "short_llm": ("s",), "long_llm": ("l",)},
    }
    chosen = Table(two / "t.csv", captions=("long_llm", "url"))
    assert chosen.columns == ("long_llm", "url")
    assert captions(chosen) == {"a.jpg": {"long_llm": ("l",), "url": ("http://x",)}}


@pytest.mark.parametrize("suffix", ["tsv", "csv"])
@pytest.mark.parametrize("delimiter", ["\t", ";", "|", ","])
def test_delimiters(two: Path, suffix: str, delimiter: str) -> None:
    if suffix == "tsv":
        delimiter = "\t"
    rows = [["image ", " caption"], ["a.jpg", "one; two | three, four"]]
    table = Table(write_csv(two / f"t.{suffix}", rows, delimiter))
    assert captions(table) == {"a.jpg": {"caption": ("one; two | three, four",)}}


def test_byte_order_mark_crlf_and_quoted_newlines(two: Path) -> None:
    path = two / "t.csv"
    text = '\ufeffimage,caption\r\na.jpg,"two\r\nlines, ""quoted"""\r\n\r\nb.jpg,\r\nb.jpg,é\r\n'
    path.write_bytes(text.encode())
    table = Table(path)
    assert captions(table) == {
        "a.jpg": {"caption": ('two\r\nlines, "quoted"',)},
        "b.jpg": {"caption": ("é",)},
    }
    assert reasons(table) == [("t.csv:5", "the caption is empty", False)]


def test_captions_that_are_nothing_are_skipped_alone(two: Path) -> None:
    rows = [["image", "caption"], ["a.jpg", ""], ["a.jpg", "a"], ["a.jpg", " \t"],
            ["a.jpg", "NaN"], ["b.jpg", "b"]]  # fmt: skip
    table = Table(write_csv(two / "t.csv", rows))
    assert captions(table) == {"a.jpg": {"caption": ("a",)}, "b.jpg": {"caption": ("b",)}}
    assert reasons(table) == [
        (f"t.csv:{line}", "the caption is empty", False) for line in (2, 4, 5)
    ]
    assert {skip.id for skip in skips(table)} == {"a.jpg"}


def test_an_image_without_any_caption_is_skipped_whole(two: Path) -> None:
    rows = [["image", "caption"], ["a.jpg", ""], ["a.jpg", " "], ["b.jpg", "b"]]
    table = Table(write_csv(two / "t.csv", rows))
    assert list(captions(table)) == ["b.jpg"]
    assert next(iter(table)) == Skip(
        "a.jpg", "none of its 2 captions can be used", f"{two / 't.csv'}:2"
    )
    assert len(table) == 2


def test_a_caption_missing_in_one_of_two_columns_leaves_the_sample_in(two: Path) -> None:
    rows = [["image", "raw", "short"], ["a.jpg", "r", ""]]
    table = Table(write_csv(two / "t.csv", rows))
    assert captions(table) == {"a.jpg": {"raw": ("r",), "short": ()}}
    assert reasons(table) == [("t.csv:2 short", "the caption is empty", False)]


def test_rows_that_cannot_be_used_are_recorded_with_their_line(two: Path) -> None:
    path = two / "t.csv"
    path.write_text(
        "image,caption\n"
        ",no image\n"
        "a.jpg,one, two\n"
        "b.jpg\n"
        "gone.jpg,g1\n"
        "gone.jpg,g2\n"
        'a.jpg,"one" two, three\n'
        "http://x.org/c.jpg,c\n"
        "a.jpg,fine\n"
    )
    table = Table(path)
    assert captions(table) == {"a.jpg": {"caption": ("fine",)}}
    assert reasons(table) == [
        ("t.csv:2", "the row names no image", False),
        ("t.csv:3", "the row has 3 cells where the header has 2", False),
        ("t.csv:4", "the row has 1 cells where the header has 2", False),
        ("t.csv:5", "the image file does not exist", True),
        ("t.csv:7", "the row is not valid CSV (',' expected after '\"')", False),
        ("t.csv:8", "the image is a URL, and only local files are read", True),
    ]
    assert [skip.id for skip in skips(table)][:4] == ["", "a.jpg", "b.jpg", "gone.jpg"]
    assert len(table) == 7


def test_a_quote_that_is_never_closed_is_an_error_not_a_giant_caption(two: Path) -> None:
    path = two / "t.csv"
    for more in (20, 20_000):
        path.write_text('image,caption\na.jpg,a\nb.jpg,"b, c\n' + "and more\n" * more)
        with pytest.raises(DataError, match=r"t\.csv:3 is never closed"):
            Table(path)


@pytest.mark.parametrize("more", [20, 20_000])
def test_a_mark_that_would_swallow_all_other_rows_is_text(two: Path, more: int) -> None:
    path = two / "t.csv"
    path.write_text('image,caption\na.jpg,a\nb.jpg,"b\n' + "a.jpg,more\n" * more)
    found = captions(Table(path))
    assert found["b.jpg"] == {"caption": ('"b',)}
    assert len(found["a.jpg"]["caption"]) == more + 1


SPEECH = ['"Stop, he said', 'she said "no"', 'it ends with "', '"Stop"', "plain"]


@pytest.mark.parametrize("name", ["t.tsv", "t.csv", "t.txt.csv"])
def test_speech_in_captions_loses_no_row(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    between = "," if name == "t.csv" else "\t"
    texts = [text.replace(",", ";") for text in SPEECH] if between == "," else SPEECH
    write_images(tmp_path, [f"{i}.jpg" for i in range(5)])
    lines = [f"{i}.jpg{between}{text}\n" for i, text in enumerate(texts)]
    (tmp_path / name).write_text("".join([f"image{between}caption\n", *lines]))
    table = Table(tmp_path / name)
    found = [each["caption"][0] for each in captions(table).values()]
    # CSV's own quotes around a whole cell go, where the file is not plainly one without quotes.
    assert found == [t if between == "\t" else t.replace('"Stop"', "Stop") for t in texts]
    assert not skips(table)
    assert f"{name}: the quotation marks of " in caplog.text and "in line 2)" in caplog.text
    assert caplog.text.count("quotation marks") == 1


def test_captions_of_several_lines_in_quotes_stay_whole(
    two: Path, caplog: pytest.LogCaptureFixture
) -> None:
    text = 'A dog,\nrunning, on grass\nand "barking", loudly'
    rows = [["image", "caption"], ["a.jpg", text], ["b.jpg", 'a "cat"']]
    table = Table(write_csv(two / "t.csv", rows))
    assert captions(table) == {"a.jpg": {"caption": (text,)}, "b.jpg": {"caption": ('a "cat"',)}}
    assert not caplog.text


def test_a_row_whose_mark_swallows_others_and_is_none_itself_is_skipped_alone(two: Path) -> None:
    path = two / "t.csv"
    path.write_text('image,caption\na.jpg,"one, two\nb.jpg,b\na.jpg,x"\n')
    table = Table(path)
    assert captions(table) == {"b.jpg": {"caption": ("b",)}, "a.jpg": {"caption": ('x"',)}}
    assert [(source, sample) for source, _, sample in reasons(table)] == [("t.csv:2", False)]


def test_other_encodings_are_an_error_that_names_the_line(two: Path) -> None:
    path = two / "t.csv"
    path.write_bytes("image,caption\na.jpg,a\nb.jpg,café\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"line 3 of .*t\.csv is not UTF-8 \(byte 0xe9\)"):
        Table(path)
    path.write_bytes("image,caption\n".encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16, line 1"):
        Table(path)


def test_ids_are_normalised_and_the_same_image_written_in_two_ways_is_one(tmp_path: Path) -> None:
    write_images(tmp_path, ["in/a.jpg", "in/B.JPG"])
    rows = [["image", "caption"], [".\\in\\a.jpg", "1"], ["in//a.jpg", "2"], ["./in/B.JPG", "3"]]
    table = Table(write_csv(tmp_path / "t.csv", rows))
    assert captions(table) == {
        "in/a.jpg": {"caption": ("1", "2")},
        "in/B.JPG": {"caption": ("3",)},
    }
    assert samples(table)[0].image == FileImage(tmp_path / "in" / "a.jpg")


def test_accents_match_in_either_unicode_form(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    write_images(tmp_path, [f"{decomposed}/{decomposed}.jpg", f"{composed}.jpg"])
    rows = [["image", "caption"], [f"{composed}/{composed}.jpg", "1"], [f"{decomposed}.jpg", "2"],
            [f"no-{composed}.jpg", "3"]]  # fmt: skip
    table = Table(write_csv(tmp_path / "t.csv", rows))
    first, second = samples(table)
    assert first.id == f"{composed}/{composed}.jpg"
    assert first.image == FileImage(tmp_path / decomposed / f"{decomposed}.jpg")
    assert second.id == f"{composed}.jpg"
    assert [skip.id for skip in skips(table)] == [f"no-{composed}.jpg"]


def test_images_are_found_beside_the_table_in_images_or_where_told(tmp_path: Path) -> None:
    rows = [["image", "caption"], ["a.jpg", "1"], ["b.jpg", "2"]]
    path = write_csv(tmp_path / "t.csv", rows)
    write_images(tmp_path / "images", ["a.jpg", "b.jpg"])
    write_images(tmp_path, ["a.jpg"])
    write_images(tmp_path / "elsewhere", ["b.jpg"])
    assert samples(Table(path))[1].image == FileImage(tmp_path / "images" / "b.jpg")
    told = Table(path, images=tmp_path / "elsewhere")
    assert [sample.image for sample in samples(told)] == [FileImage(tmp_path / "elsewhere/b.jpg")]
    with pytest.raises(DataError, match="not one of the 2 images") as caught:
        Table(path, images=tmp_path / "nowhere")
    assert "'a.jpg'" in caught.value.message and "nowhere" in caught.value.message
    assert "--data.images" in caught.value.remedy


def test_absolute_image_paths(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", ["a.jpg"])
    (tmp_path / "tables").mkdir()
    name = str(tmp_path / "photos" / "a.jpg")
    table = Table(write_csv(tmp_path / "tables" / "t.csv", [["path", "text"], [name, "1"]]))
    (sample,) = samples(table)
    assert sample.id == name
    assert sample.image is not None and sample.image.read() == jpeg((0, 0, 0))


def test_columns_that_cannot_be_guessed_are_listed_with_the_option(two: Path) -> None:
    path = write_csv(two / "t.csv", [["bild", "satz"], ["a.jpg", "Ein Hund"]])
    with pytest.raises(DataError, match="bild, satz") as caught:
        Table(path)
    assert "--data.captions" in caught.value.remedy
    assert "--data.image_column" in caught.value.remedy
    table = Table(path, image_column="bild", captions=["satz"])
    assert captions(table) == {"a.jpg": {"satz": ("Ein Hund",)}}


def test_a_column_that_is_not_there_is_an_error_with_the_nearest(two: Path) -> None:
    path = write_csv(two / "t.csv", [["image", "caption"], ["a.jpg", "1"]])
    with pytest.raises(DataError, match="no column 'captoin'") as caught:
        Table(path, captions=("captoin",))
    assert "Did you mean 'caption'?" in caught.value.remedy
    with pytest.raises(DataError, match=r"no column 'imag' \(--data.image_column\)"):
        Table(path, image_column="imag")


@pytest.mark.parametrize("text", ["", "image,caption\n", "image,caption\n\n\n"])
def test_a_table_without_rows_is_an_error(two: Path, text: str) -> None:
    (two / "t.csv").write_text(text)
    with pytest.raises(DataError, match=r"no header|no rows"):
        Table(two / "t.csv")


def test_two_columns_of_one_name_are_an_error(two: Path) -> None:
    path = write_csv(two / "t.csv", [["image", "caption", "caption"], ["a.jpg", "1", "2"]])
    with pytest.raises(DataError, match="more than one column 'caption'"):
        Table(path)


def test_json_lines_with_lists_and_odd_values(two: Path) -> None:
    lines = [
        {"image": "a.jpg", "captions": ["a1", "", "a2"], "text": "t"},
        {"image": "b.jpg", "captions": [], "text": 7},
        {"image": "b.jpg", "captions": "b \ud83d", "text": float("nan")},
        {"image": None, "captions": ["x"], "text": "x"},
        {"image": 3, "captions": ["x"], "text": "x"},
    ]
    path = write_jsonl(two / "t.jsonl", lines)
    with path.open("a") as file:
        file.write('\n{"image": \n["a.jpg"]\n')
        file.write('{"image": "b.jpg", "captions": ["line\u2028separator"]}\n')
    table = Table(path)
    assert captions(table) == {
        "a.jpg": {"captions": ("a1", "a2"), "text": ("t",)},
        "b.jpg": {"captions": ("line\u2028separator",), "text": ()},
    }
    found = reasons(table)
    assert found[0] == ("t.jsonl:1 captions[1]", "the caption is empty", False)
    assert found[1:6] == [
        ("t.jsonl:2 captions", "it has no caption", False),
        ("t.jsonl:2 text", "the caption is not text but int", False),
        ("t.jsonl:3 captions", "the caption is not valid Unicode", False),
        ("t.jsonl:3 text", "the caption is empty", False),
        ("t.jsonl:9 text", "the caption is empty", False),
    ]
    assert [source for source, _, _ in found[6:]] == [
        "t.jsonl:4", "t.jsonl:5", "t.jsonl:7", "t.jsonl:8",
    ]  # fmt: skip
    assert "not valid JSON" in found[8][1] and found[9][1] == "the line is not a JSON object"
    assert is_fixed(table, lambda: Table(path))


def test_texts_alone_take_their_ids_from_a_column_or_the_row(tmp_path: Path) -> None:
    rows = [["text", "key"], ["one", "x"], ["two", "y"], ["three", "x"], ["four", ""]]
    with_key = Table(write_csv(tmp_path / "a.csv", rows))
    assert captions(with_key) == {"x": {"text": ("one", "three")}, "y": {"text": ("two",)}}
    assert [sample.image for sample in samples(with_key)] == [None, None]
    assert reasons(with_key) == [("a.csv:5", "the row has no key", False)]
    without = Table(write_csv(tmp_path / "b.csv", [row[:1] for row in rows]))
    assert list(captions(without)) == ["0", "1", "2", "3"]
    assert is_fixed(without, lambda: Table(tmp_path / "b.csv"))


def test_a_table_of_images_alone_has_no_columns(two: Path) -> None:
    table = Table(write_csv(two / "t.csv", [["image"], ["b.jpg"], ["a.jpg"], ["b.jpg"]]))
    assert table.columns == ()
    assert [sample.id for sample in table] == ["b.jpg", "a.jpg"]


def test_the_fingerprint_follows_images_captions_order_and_not_the_place(tmp_path: Path) -> None:
    rows = [
        ["image", "caption", "note"],
        ["a.jpg", "1", ""],
        ["b.jpg", "2", ""],
        ["a.jpg", "3", ""],
    ]

    def fingerprint(name: str, rows: list[list[str]], **options: Any) -> str:
        folder = write_images(tmp_path / name, ["a.jpg", "b.jpg"])
        if options.pop("repaint", False):
            (folder / "b.jpg").write_bytes(jpeg((99, 99, 99)))
        return Table(write_csv(folder / "t.csv", rows), **options).fingerprint

    first = fingerprint("one", rows)
    assert fingerprint("two", rows) == first
    assert fingerprint("other note", [*rows[:3], ["a.jpg", "3", "!"]]) == first
    others = {
        fingerprint("image", rows, repaint=True),
        fingerprint("caption", [*rows[:3], ["a.jpg", "4", ""]]),
        fingerprint("column", rows, captions=("caption", "note")),
        fingerprint("order", [rows[0], rows[3], rows[2], rows[1]]),
        fingerprint("fewer", rows[:3]),
    }
    assert len(others | {first}) == 6


def test_iterating_reads_no_image(two: Path) -> None:
    table = Table(write_csv(two / "t.csv", [["image", "caption"], ["a.jpg", "1"]]))
    shutil.rmtree(two)
    assert [sample.id for sample in samples(table)] == ["a.jpg"]


def test_a_file_that_is_no_table_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text(json.dumps({}))
    with pytest.raises(DataError, match="not a table") as caught:
        Table(tmp_path / "t.txt")
    assert ".jsonl" in caught.value.remedy
    with pytest.raises(DataError, match="cannot read"):
        Table(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    "cell", ['["a dog", "it\'s one"]', "['a dog', \"it's one\"]", "['a dog'\n \"it's one\"]"]
)
def test_a_list_in_a_cell_is_several_captions(cell: str, tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    rows = [["image", "raw"], ["a.jpg", cell], ["b.jpg", "[laughs] one"]]
    first, second = samples(Table(write_csv(tmp_path / "t.csv", rows)))
    assert first.captions == {"raw": ("a dog", "it's one")}
    assert second.captions == {"raw": ("[laughs] one",)}


def test_a_damaged_list_in_a_cell_is_a_skip(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    rows = [["image", "raw"], ["a.jpg", "['a dog' he 'b']"], ["b.jpg", "fine"]]
    table = Table(write_csv(tmp_path / "t.csv", rows))
    assert [sample.id for sample in samples(table)] == ["b.jpg"]
    assert reasons(table) == [
        ("t.csv:2", "the caption looks like a list, and cannot be read as one", True)
    ]


@pytest.mark.parametrize("text", ["None", "null", "N/A", " <NA> ", "na", "#N/A", "undefined"])
def test_a_caption_that_says_nothing_is_none(text: str, tmp_path: Path) -> None:
    write_images(tmp_path, ["a.jpg", "b.jpg"])
    rows = [["image", "caption"], ["a.jpg", text], ["a.jpg", "a dog"], ["b.jpg", "none of it"]]
    table = Table(write_csv(tmp_path / "t.csv", rows))
    assert [s.captions["caption"] for s in samples(table)] == [("a dog",), ("none of it",)]
    assert reasons(table) == [("t.csv:2", f"the caption says nothing ({text.strip()!r})", False)]
