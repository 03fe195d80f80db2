from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from benchmark_toys import mmvp_folder, write
from builders import is_fixed, samples, skips

from lateen.errors import DataError
from lateen.evaluation.tasks.mmvp import PATTERNS, read_mmvp

QUESTIONS = [
    (1, "Orientation", "a red thing"),
    (2, "Orientation", "a blue thing, from behind"),
    (31, "Camera Perspective", "green"),
    (32, "Camera Perspective", "black"),
]


def test_the_published_layout(tmp_path: Path) -> None:
    found = read_mmvp(mmvp_folder(tmp_path, QUESTIONS))
    assert [case.id for case in found.cases] == ["1-2", "31-32"]
    assert found.cases[0].images == ("1", "2")
    assert found.cases[0].captions == ("a red thing", "a blue thing, from behind")
    assert found.cases[1].groups == {"pattern": "Viewpoint and Perspective"}
    assert [Path(s.image.name).name for s in samples(found.images) if s.image] == [
        "1.jpg", "2.jpg", "31.jpg", "32.jpg",
    ]  # fmt: skip
    assert is_fixed(found.images, lambda: read_mmvp(tmp_path).images)
    assert read_mmvp(tmp_path / "Questions.csv").cases == found.cases


def test_there_are_nine_patterns() -> None:
    assert len(PATTERNS) == len(set(PATTERNS.values())) == 9


@pytest.mark.parametrize("kind", ["Camera_Perspective", "viewpoint and perspective", "Text"])
def test_a_pattern_may_be_written_in_other_ways(tmp_path: Path, kind: str) -> None:
    root = mmvp_folder(tmp_path, [(1, kind, "red"), (2, kind, "blue")], folder="MMVP_VLM_Images")
    full = "Text" if kind == "Text" else "Viewpoint and Perspective"
    assert read_mmvp(root).cases[0].groups == {"pattern": full}
    assert len(samples(read_mmvp(root).images)) == 2


def test_rows_in_another_order_are_the_same_pairs(tmp_path: Path) -> None:
    turned = read_mmvp(mmvp_folder(tmp_path / "a", QUESTIONS[::-1]))
    assert turned.cases == read_mmvp(mmvp_folder(tmp_path / "b", QUESTIONS)).cases


def test_an_odd_number_of_images_leaves_the_one_without_partner_out(tmp_path: Path) -> None:
    found = read_mmvp(mmvp_folder(tmp_path, [*QUESTIONS, (34, "Text", "white")]))
    assert [case.id for case in found.cases] == ["1-2", "31-32"]
    assert [(skip.id, skip.reason) for skip in found.skips] == [
        ("33-34", "question 34 has no partner: there is no question 33")
    ]
    first = read_mmvp(mmvp_folder(tmp_path / "b", [*QUESTIONS, (5, "Text", "white")]))
    assert first.skips[0].reason == "question 5 has no partner: there is no question 6"


def test_rows_that_cannot_be_used_are_recorded(tmp_path: Path) -> None:
    rows = [
        *QUESTIONS, ("x", "Text", "red"), (1, "Orientation", "white"),
        (5, "Text", "red"), (6, "Color", "blue"), (7, "Text", " "), (8, "Text", "blue"),
    ]  # fmt: skip
    found = read_mmvp(mmvp_folder(tmp_path, rows))
    assert len(found.cases) == 2
    assert {skip.id: skip.reason for skip in found.skips} == {
        "x": "the Question ID 'x' is no number",
        "1": "the Question ID 1 was already used",
        "5-6": "questions 5 and 6 are of the patterns Text and Color",
        "7-8": "a caption is missing",
    }


def test_images_elsewhere_missing_and_all_missing(tmp_path: Path) -> None:
    root = mmvp_folder(tmp_path / "m", QUESTIONS, images={32: ()})
    assert [(s.id, "32.jpg" in s.reason) for s in skips(read_mmvp(root).images)] == [("32", True)]
    (root / "MLLM_VLM Images").rename(tmp_path / "pictures")
    with pytest.raises(DataError, match="not one of the 4 images"):
        read_mmvp(root)
    assert len(samples(read_mmvp(root, images=tmp_path / "pictures").images)) == 3


def test_an_unknown_pattern_stops_with_the_nine(tmp_path: Path) -> None:
    root = mmvp_folder(tmp_path, [(1, "Colour", "red"), (2, "Colour", "blue")])
    with pytest.raises(DataError, match=r"pattern 'Colour', .*Did you mean 'Color'"):
        read_mmvp(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Question ID,Type\n1,Text\n", "no column 'Statement'"),
        ("Question ID,Type,Statement\n", "no example that can be used"),
        ("", "is no header"),
    ],
)
def test_missing_columns_and_empty_files(tmp_path: Path, content: str, message: str) -> None:
    write(tmp_path / "Questions.csv", content)
    with pytest.raises(DataError, match=message):
        read_mmvp(tmp_path)


def test_nothing_there_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*hf download MMVP/MMVP_VLM"):
        read_mmvp(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no Questions.csv.*hf download"):
        read_mmvp(tmp_path)


def test_the_hub_by_name_and_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"MMVP/MMVP_VLM cannot be reached.*hf download"):
        read_mmvp("MMVP/MMVP_VLM")
    root = mmvp_folder(tmp_path, QUESTIONS)

    def download(name: str, **options: Any) -> str:
        assert (name, options["repo_type"]) == ("MMVP/MMVP_VLM", "dataset")
        return str(root)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert len(read_mmvp("MMVP/MMVP_VLM").cases) == 2


def test_questions_in_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "Questions.csv").write_text("")
    with pytest.raises(DataError, match=r"no header \(it is empty\)"):
        read_mmvp(tmp_path)
