"""How likely captions are under images: the numbers themselves, and what is made of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import jpeg

from lateen.data.samples import FileImage
from lateen.errors import DataError, ImageError, ModelError, UsageError
from lateen.evaluation import compare
from lateen.mllm import MultimodalModel, build, evaluate_questions, open_questions
from lateen.mllm.benchmarks import Question, QuestionSet, other_images
from lateen.mllm.conversations import plain_caption
from lateen.mllm.likelihood import caption_likelihoods
from lateen.model.model import as_image

CAPTIONS = ["A dog runs.", "Two men sit on a bench .", "Snow", "A cat sleeps on the old chair."]


@pytest.fixture
def photographs(tmp_path: Path) -> list[FileImage]:
    files = [tmp_path / f"{at}.jpg" for at in range(4)]
    for at, file in enumerate(files):
        file.write_bytes(jpeg((60 * at, 200 - 50 * at, 90)))
    return [FileImage(file) for file in files]


def by_hand(mllm: MultimodalModel, image: FileImage, caption: str) -> tuple[float, int]:
    """One forward pass of the whole model, as transformers has it."""
    text = plain_caption(mllm.processor, caption)
    inputs = mllm.processor(text=[text], images=[as_image(image.path)], return_tensors="pt",
                            add_special_tokens=False)  # fmt: skip
    with torch.no_grad():
        logits = mllm.model(**inputs).logits[0].float().log_softmax(-1)
    ids = inputs["input_ids"][0]
    length = len(mllm.processor.tokenizer(f" {caption}")["input_ids"])
    behind = range(len(ids) - 1 - length, len(ids) - 1)  # the last is the token that ends it
    return sum(float(logits[at - 1, ids[at]]) for at in behind), length


def test_likelihoods_are_those_of_single_forward_passes(
    mllm: MultimodalModel, photographs: list[FileImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(image, caption) for caption in CAPTIONS for image in photographs]
    expected = [by_hand(mllm, *pair) for pair in pairs]
    for most in (4096, 150):  # all at once, and a few at a time
        monkeypatch.setattr("lateen.mllm.likelihood._MOST_TOKENS", most)
        found = caption_likelihoods(mllm, pairs)
        assert [each.total for each in found] == pytest.approx([t for t, _ in expected], abs=1e-3)
        assert [each.tokens for each in found] == [n for _, n in expected]
    assert found[0].loss == pytest.approx(-expected[0][0] / (1 + len(CAPTIONS[0])), abs=1e-4)
    assert len({each.total for each in found}) == len(pairs)  # the images matter


def test_each_image_is_encoded_once(
    mllm: MultimodalModel, photographs: list[FileImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []
    encode = mllm.model.get_image_features

    def counted(**options: Any) -> Any:
        encoded.append(1)
        return encode(**options)

    monkeypatch.setattr(mllm.model, "get_image_features", counted)
    monkeypatch.setattr("lateen.mllm.likelihood._MOST_TOKENS", 150)
    caption_likelihoods(mllm, [(image, text) for text in CAPTIONS for image in photographs])
    assert len(encoded) == len(photographs)


def test_what_cannot_be_scored_is_said(mllm: MultimodalModel, photographs: list[FileImage]) -> None:
    with pytest.raises(DataError, match="a caption is empty"):
        caption_likelihoods(mllm, [(photographs[0], "")])
    with pytest.raises(ModelError, match="tokens long"):
        caption_likelihoods(mllm, [(photographs[0], "long " * 60)])
    photographs[0].path.write_bytes(b"no image")
    with pytest.raises(ImageError):
        caption_likelihoods(mllm, [(photographs[0], "A dog.")])


def captions(photographs: list[FileImage]) -> QuestionSet:
    asked = [
        Question(str(at), (image,), (image.path.name,), "Describe it.", "caption", (text, "Other."))
        for at, (image, text) in enumerate(zip(photographs, CAPTIONS, strict=True))
    ]
    return QuestionSet("captions-of", "", "", tuple(asked))


def test_own_captions_are_held_against_another_image(
    mllm: MultimodalModel, photographs: list[FileImage], tmp_path: Path
) -> None:
    questions = captions(photographs)
    result = evaluate_questions(
        mllm, questions, out=tmp_path / "out", answered_by="likelihood", place="here"
    )

    def losses(some: QuestionSet) -> list[float]:
        told = [by_hand(mllm, each.images[0], each.answers[0]) for each in some.questions]  # type: ignore[arg-type]
        return [-total / tokens for total, tokens in told]

    own, other = losses(questions), losses(other_images(questions))
    assert result["loss"] == pytest.approx(sum(own) / 4, abs=1e-4)
    assert result["control"]["loss"] == pytest.approx(sum(other) / 4, abs=1e-4)
    lower = sum(a < b for a, b in zip(own, other, strict=True))
    assert result["own_likelier"] == 25 * lower
    assert result["chance"] == {"own_likelier": 50.0}
    low, high = result["intervals"]["loss"]
    assert low <= result["loss"] <= high
    assert json.loads((tmp_path / "out" / "captions-of-likelihood.json").read_text()) == result
    page = (tmp_path / "out" / "captions-of-likelihood.html").read_text()
    assert "loss of captions, in nats for each token" in page
    assert "the projector is untrained" in page
    rows = {row.metric: row for row in compare([tmp_path / "out"]).rows}
    assert rows["own likelier"].set == "captions-of, by likelihood"


def things(photographs: list[FileImage]) -> QuestionSet:
    answers = {"a dog": "yno-", "snow": "nyyn"}
    asked = [
        Question(f"{thing}-{at}", (photographs[at],), (str(at),), f"Is there {thing} in the image?",
                 "yes-no", ("yes" if answer == "y" else "no",))
        for thing, marks in answers.items() for at, answer in enumerate(marks) if answer != "-"
    ]  # fmt: skip
    return QuestionSet("pope-of-captions", "", "Answer.", tuple(asked))


def test_things_are_likelier_where_they_are(
    mllm: MultimodalModel, photographs: list[FileImage]
) -> None:
    questions = things(photographs)
    result = evaluate_questions(mllm, questions, answered_by="likelihood")

    def in_order(some: QuestionSet) -> float:
        words = {"a dog": "A dog", "snow": "Snow"}
        told: dict[str, dict[str, list[float]]] = {}
        for each in some.questions:
            thing = each.id.rpartition("-")[0]
            total, _ = by_hand(mllm, each.images[0], words[thing])  # type: ignore[arg-type]
            told.setdefault(thing, {"yes": [], "no": []})[each.answers[0]].append(total)
        pairs = [a > b for kinds in told.values() for a in kinds["yes"] for b in kinds["no"]]
        return 100 * sum(pairs) / len(pairs)

    assert result["pairwise"] == pytest.approx(in_order(questions))
    assert result["control"]["pairwise"] == pytest.approx(in_order(other_images(questions)))
    assert result["gain"] == pytest.approx(result["pairwise"] - result["control"]["pairwise"])
    assert (result["metric"], result["chance"]) == ("pairwise", {"pairwise": 50.0})


def test_an_image_that_cannot_be_read_is_left_out(
    mllm: MultimodalModel, photographs: list[FileImage]
) -> None:
    photographs[1].path.write_bytes(b"no image")
    result = evaluate_questions(mllm, captions(photographs), answered_by="likelihood")
    assert (result["n"], result["skipped"], result["questions"]) == (3, 1, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": "Is it red?"}, "ask neither for a caption nor whether there is a thing"),
        ({"kind": "short"}, "ask neither for a caption"),
    ],
)
def test_other_questions_have_no_likelihood(
    mllm: MultimodalModel, photographs: list[FileImage], change: dict[str, Any], message: str
) -> None:
    some = things(photographs)
    other = replace(some, questions=tuple(replace(each, **change) for each in some.questions))
    with pytest.raises(UsageError, match=message):
        evaluate_questions(mllm, other, answered_by="likelihood")
    with pytest.raises(UsageError, match="take no limit of tokens"):
        evaluate_questions(mllm, some, answered_by="likelihood", max_tokens=3)


def test_of_a_dataset_with_captions(
    mllm: MultimodalModel, tmp_path: Path, photographs: list[FileImage]
) -> None:
    lines = [f"{image.path.name},{text}" for image, text in zip(photographs, CAPTIONS, strict=True)]
    table = tmp_path / "captions.csv"
    table.write_text("\n".join(["image,caption", *lines]) + "\n")
    result = evaluate_questions(mllm, open_questions("captions-of", table),
                                answered_by="likelihood")  # fmt: skip
    assert result["n"] == 4
    things = evaluate_questions(mllm, open_questions("pope-of-captions", table),
                                answered_by="likelihood")  # fmt: skip
    assert 0 <= things["pairwise"] <= 100


def test_a_tower_of_patches_of_a_hidden_layer_is_scored_alike(
    vit_folder: Path, llm_folder: Path, photographs: list[FileImage]
) -> None:
    built = build(str(vit_folder), llm_folder, tokens="patch", layer=-2)
    ready = MultimodalModel(built.model, built.processor, built.record)
    [found] = caption_likelihoods(ready, [(photographs[2], CAPTIONS[3])])
    assert found.total == pytest.approx(by_hand(ready, photographs[2], CAPTIONS[3])[0], abs=1e-3)
