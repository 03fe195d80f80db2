"""Photographs are labelled: which label, with what confidence, and when with none."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from commands import call, saved_model
from toys import photo

from lateen import classify
from lateen.data.labels.names import packaged_class_names
from lateen.errors import DataError, UsageError
from lateen.indexing.labels import NONE, _sentence
from lateen.model import AlignedModel, open_model

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for colour in ("red", "green", "blue"):
        for index in range(3):
            photo(tmp_path / "photos" / f"{colour}-{index}.png", colour, seed=index)
    (tmp_path / "photos" / "bad.png").write_bytes(b"no picture")
    return tmp_path / "photos"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved_model(tmp_path / "model")


@pytest.mark.parametrize("name", ["clip_folder", "siglip_folder"])
def test_confidences_are_a_plain_softmax_with_the_model_s_scale(
    name: str, photos: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    labels = ["a dog", "the cat", "big grass"]
    found = classify(folder, photos, labels, templates="a {} runs.")
    model = open_model(folder)
    text = model.encode_text(["a dog runs.", "a cat runs.", "a big grass runs."])
    for photograph in found.photographs:
        image = model.encode_image(photograph.path)[0]
        logits = model.logit_scale.exp() * (text @ image)
        expected = (logits.double().exp() / logits.double().exp().sum()).tolist()
        order = sorted(range(3), key=lambda i: -expected[i])
        assert photograph.label == labels[order[0]]
        assert photograph.runner_up == labels[order[1]]
        assert photograph.confidence == pytest.approx(expected[order[0]], abs=2e-3)
        assert photograph.runner_up_confidence == pytest.approx(expected[order[1]], abs=2e-3)
        assert photograph.cosine == pytest.approx(float(text[order[0]] @ image), abs=2e-3)
        assert photograph.fit is None
    assert found.conditions["loss"] == ("sigmoid" if name == "siglip_folder" else "infonce")
    assert found.conditions["logit_scale"] == pytest.approx(model.logit_scale.exp().item())


def test_every_image_is_labelled_or_skipped(model: Path, photos: Path) -> None:
    found = classify(model, photos, ["something green", "red", "blue"])
    assert {p.id: p.label for p in found.photographs if p.id.startswith("green")} == {
        f"green-{i}.png": "something green" for i in range(3)
    }
    assert [skip["id"] for skip in found.skipped] == ["bad.png"]
    assert sum(found.counts.values()) == len(found.photographs) == 9
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert len(rows) == 10
    [bad] = [row for row in rows if row["path"] == "bad.png"]
    assert bad["label"] == "" and bad["skipped"]
    best = found.of("red")
    assert [p.confidence for p in best] == sorted((p.confidence for p in best), reverse=True)


def test_none_of_these_is_a_label_no_better_than_everyday_words(
    clip_folder: Path, photos: Path
) -> None:
    model = open_model(clip_folder)
    labels, template = ["dog", "cat"], "a {}"
    found = classify(model, photos, labels, templates=[template], none=50)
    words = [each.words for each in packaged_class_names("cifar100")]
    assert len(words) == 100
    text = model.encode_text([f"a {name}" for name in [*labels, *words]])
    below = 0
    for photograph in found.photographs:
        cosines = text @ model.encode_image(photograph.path)[0]
        fit = (cosines[:2].max() > cosines[2:]).sum().item()
        assert photograph.fit == pytest.approx(fit, abs=2)  # the cached features are float16
        assert (photograph.label == NONE) == (photograph.fit <= 50)
        if photograph.label == NONE:
            below += 1
            assert photograph.confidence is None and photograph.runner_up in labels
    assert found.labels == ("dog", "cat", NONE)
    assert found.counts[NONE] == below
    everything = classify(model, photos, "dog", none=0)
    assert all(p.runner_up is None for p in everything.photographs if p.label == "dog")


def test_an_article_of_a_label_stands_once_in_a_sentence() -> None:
    assert _sentence("a dog", "a photo of a {}.", False) == "a photo of a dog."
    assert _sentence("an owl", "one {} and more", False) == "one owl and more"
    assert _sentence("owl", "a photo of a {}.", False) == "a photo of an owl."
    assert _sentence("the sea", "{}, seen from afar", True) == "the sea, seen from afar"
    assert _sentence("A", "a {}", True) == "a A"


def test_labels_and_templates_in_files(model: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("red\n\ngreen, or so\n")
    (tmp_path / "t.txt").write_text("{}\npure {c}\n")
    found = classify(model, photos, tmp_path / "l.txt", templates=tmp_path / "t.txt")
    assert found.labels == ("red", "green, or so")
    assert found.conditions["templates"] == ["{}", "pure {}"]
    assert classify(model, photos, str(tmp_path / "l.txt")).labels == found.labels
    assert len(classify(model, photos, "red,blue", templates="sketch").conditions["templates"]) > 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("red", "one label is too few"), ("red,Red", "'red' is given twice"), ([], "no label"),
        ("red,", "label 2 is"), (f"red,{NONE}", "asked for by --none"),
    ],
)  # fmt: skip
def test_labels_that_cannot_be_told_apart_are_refused(
    labels: str | list[str], message: str, model: Path, photos: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        classify(model, photos, labels, none=NONE in labels)


def test_what_is_not_there_is_said(model: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file of labels labels\.txt"):
        classify(model, photos, "labels.txt")
    with pytest.raises(DataError, match="no folder"):
        classify(model, tmp_path / "nowhere", "red,blue")
    with pytest.raises(UsageError, match="no templates 'skech'"):
        classify(model, photos, "red,blue", templates="skech")
    with pytest.raises(UsageError, match="no place"):
        classify(model, photos, "red,blue", templates=["a photo"])
    with pytest.raises(UsageError, match="better than 100 %"):
        classify(model, photos, "red,blue", none=100)


def test_the_command_writes_a_table_a_file_and_a_page(
    model: Path, photos: Path, tmp_path: Path, capsys: Capture
) -> None:
    out, page = tmp_path / "l.csv", tmp_path / "l.html"
    words = ["classify", model, "--images", photos, "--labels", "red,green,blue"]
    code, shown, _ = call(capsys, *words, "--out", out, "--page", page)
    assert code == 0
    assert "no probability" in " ".join(shown.split())
    assert "1 images could not be read, the first: bad.png" in shown
    assert len(out.read_text().splitlines()) == 11
    html = page.read_text()
    assert html.count("data:image/webp") == 9
    assert str(tmp_path) not in html and "no probability" in html
    for existing in ("--out", "--page"):
        code, _, err = call(capsys, *words, existing, out)
        assert (code, "exists" in err) == (2, True)
    assert call(capsys, *words, "--out", out, "--overwrite")[0] == 0
    code, shown, _ = call(capsys, *words, "--json")
    result = json.loads(shown)
    assert result["counts"]["red"] == 3 and len(result["photographs"]) == 9
    code, _, err = call(capsys, *words, "--none-percent", 50)
    assert (code, "--none-percent belongs to --none" in err) == (2, True)


def test_none_of_these_of_the_command(model: Path, photos: Path, capsys: Capture) -> None:
    words = ["classify", model, "--images", photos, "--labels", "red", "--none", "--json"]
    code, shown, _ = call(capsys, *words, "--none-percent", 0)
    result = json.loads(shown)
    assert code == 0
    red = {p["id"] for p in result["photographs"] if p["label"] == "red"}
    assert red >= {f"red-{i}.png" for i in range(3)}
    assert "100 everyday words" in result["none"]


def test_the_cache_is_that_of_search(
    model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toys import ColourEncoder

    from lateen import search

    loaded = AlignedModel.from_pretrained(model)
    search(loaded, "red", photos)

    def encode(self: ColourEncoder, prepared: list[torch.Tensor]) -> torch.Tensor:
        raise AssertionError("encoded again")

    monkeypatch.setattr(ColourEncoder, "encode", encode)
    assert len(classify(AlignedModel.from_pretrained(model), photos, "red,blue").photographs) == 9
