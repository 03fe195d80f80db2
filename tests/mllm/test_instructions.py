"""What is learned from: captions, LLaVA's JSON, questions; what does not fit is left out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lateen.errors import DataError, UsageError
from lateen.mllm.instructions import Conversation, open_instructions
from mllm.conftest import picture


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for at in range(6):
        picture(at).save(folder / f"{at}.png")
    return folder


def said(each: Conversation) -> list[str]:
    return [
        "".join("<image>" if part["type"] == "image" else part["text"] for part in turn["content"])
        for turn in each.messages
    ]


def row(name: str, image: Any, *turns: str) -> dict[str, Any]:
    spoken = zip(("human", "gpt") * len(turns), turns, strict=False)
    return {
        "id": name, **({} if image is None else {"image": image}),
        "conversations": [{"from": who, "value": text} for who, text in spoken],
    }  # fmt: skip


def test_each_caption_is_a_conversation(images: Path) -> None:
    table = images.parent / "captions.csv"
    with table.open("w") as file:
        csv.writer(file).writerows(
            [("image", "caption"), ("0.png", "a"), ("0.png", "b"), ("1.png", "c"), ("9.png", "d")]
        )
    found = open_instructions(table)
    assert [said(each) for each in found.conversations] == [
        ["<image>", "a"], ["<image>", "b"], ["<image>", "c"],
    ]  # fmt: skip
    assert set(found.images) == {each.images[0] for each in found.conversations}
    assert len(found.skips) == 1


def test_rows_of_llava_that_do_not_fit_are_left_out(
    images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        row("a", "0.png", "<image>\nWhich?", "A dog.", "Sure?", "Yes."),
        row("b", None, "Two and two?", "Four."),
        row("a", ["1.png", "2.png"], "<image> or <image>?", "The first."),
        row("d", "3.png", "No place for it.", "Nothing."),
        row("e", "3.png", "<image> and <image>?", "Two."),
        row("f", None, "<image>\nWhich?", "None."),
        row("g", "9.png", "<image>\nWhich?", "None."),
        row("h", "3.png", "<image>\nWhich?"),
        {"id": "i", "image": "3.png"},
        row("j", "3.png", "<image>\nWhich?") | {"conversations": [{"from": "robot", "value": ""}]},
    ]
    file = images.parent / "llava.json"
    file.write_text(json.dumps(rows))
    found = open_instructions(file)
    # An id that occurs twice, as in LLaVA's mixture, is two conversations.
    assert [each.id for each in found.conversations] == ["a", "b", "a#2"]
    assert found.conversations[0].images == ("0.png",)
    assert said(found.conversations[0]) == ["<image>Which?", "A dog.", "Sure?", "Yes."]
    assert found.conversations[1].images == ()
    assert found.conversations[2].images == ("1.png", "2.png")
    reasons = {skip.id: skip.reason for skip in found.skips}
    assert set(reasons) == {"d", "e", "f", "g", "h", "i", "j"}
    assert reasons["d"] == "the conversation has no <image> and 1 image"
    assert reasons["f"] == "the conversation has 1 <image> and no images"
    assert "there is no" in reasons["g"]
    assert reasons["h"] == "nothing is answered in it"
    assert "left out of llava.json" in caplog.text


def test_lines_of_json_do_as_well(images: Path) -> None:
    file = images.parent / "llava.jsonl"
    rows = [json.dumps(row(str(at), f"{at}.png", "<image>Which?", f"{at}")) for at in range(3)]
    file.write_text("\n".join([*rows, '{"id": "broken", ']))
    found = open_instructions(file)
    assert len(found.conversations) == 3
    assert "invalid JSON" in found.skips[0].reason


def test_questions_are_learned_with_their_answers(images: Path) -> None:
    (images.parent / "train" / "images").mkdir(parents=True)
    for at in range(2):
        picture(at).save(images.parent / "train" / "images" / f"{at}.png")
    asked = [["what color is it?", "red", 0], ["is it red?", "no", 1]]
    (images.parent / "train" / "questions.json").write_text(json.dumps(asked))
    found = open_instructions(images.parent, questions="easy-vqa")
    assert found.name == "easy-vqa-train"
    assert [said(each)[1] for each in found.conversations] == ["red", "no"]
    assert said(found.conversations[0])[0].startswith("<image>what color is it?\nAnswer")


def test_what_judges_is_not_learned_by_default(images: Path) -> None:
    with pytest.raises(UsageError, match=r"pope has no split to learn from.*--data\.split"):
        open_instructions(images, questions="pope")


def test_nothing_to_learn_from_is_said(images: Path) -> None:
    file = images.parent / "llava.json"
    file.write_text(json.dumps([row("a", "0.png", "No place.", "Nothing.")]))
    with pytest.raises(DataError, match=r"no conversation to learn from \(the first: .*no <image>"):
        open_instructions(file)
    file.write_text(json.dumps([row("a", "absent.png", "<image>Which?", "A dog.")]))
    with pytest.raises(DataError, match=r"not one of the 1 images.*--data\.images"):
        open_instructions(file)
    file.write_text("[{")
    with pytest.raises(DataError, match="is no JSON"):
        open_instructions(file)


def test_other_words_or_other_bytes_are_other_data(images: Path) -> None:
    file = images.parent / "llava.json"
    file.write_text(json.dumps([row("a", "0.png", "<image>Which?", "A dog.")]))
    first = open_instructions(file).fingerprint
    assert first == open_instructions(file).fingerprint
    file.write_text(json.dumps([row("a", "0.png", "<image>Which?", "A cat.")]))
    second = open_instructions(file).fingerprint
    picture(99).save(images / "0.png")
    assert len({first, second, open_instructions(file).fingerprint}) == 3


def test_a_line_ends_at_its_end_whatever_is_within_it(images: Path) -> None:
    file = images.parent / "llava.jsonl"
    said_so = json.dumps(row("a", "0.png", "<image>Which?", "One\u2028two."), ensure_ascii=False)
    file.write_text(f"{said_so}\n", encoding="utf-8")
    [found] = open_instructions(file).conversations
    assert said(found) == ["<image>Which?", "One\u2028two."]
