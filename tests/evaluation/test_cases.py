from pathlib import Path

import pytest
import torch
from benchmark_toys import BlindEncoder, PaletteEncoder, colour_model, picture, write

from lateen.data.samples import FileImage, Skip
from lateen.errors import DataError, UsageError
from lateen.evaluation.cases import Case, CaseSet, listed_images, score_cases


def colours(tmp_path: Path, cases: list[Case], skips: tuple[Skip, ...] = ()) -> CaseSet:
    """Cases over images of one colour, whose ids are the colours."""
    names = dict.fromkeys(image for case in cases for image in case.images)
    files = {
        name: f"there is no {name}" if name == "absent" else FileImage(
            write(tmp_path / f"{name}.png", b"damaged" if name == "bad" else picture(name))
        )
        for name in names
    }  # fmt: skip
    return CaseSet("colours", cases, listed_images("colours", files, "Check."), list(skips))


def test_scores_are_cosines_of_each_image_with_each_caption(tmp_path: Path):
    cases = [
        Case("1", ("red", "blue"), ("red and blue", "blue")),
        Case("2", ("green", "red"), ("green", "green")),
    ]
    model = colour_model()
    scored = score_cases(model, colours(tmp_path, cases))
    half = 0.5**0.5
    expected = [[[half, 0], [half, 1]], [[1, 1], [0, 0]]]
    assert scored.scores.flatten().tolist() == pytest.approx(torch.tensor(expected).flatten())
    image = model.encode_image([tmp_path / "red.png", tmp_path / "blue.png"])
    plain = image @ model.encode_text(["red and blue", "blue"]).T
    torch.testing.assert_close(scored.scores[0], plain)


def test_cases_with_fewer_captions_are_filled_up_with_minus_infinity(tmp_path: Path):
    cases = [Case("1", ("red",), ("red", "blue")), Case("2", ("red",), ("red", "blue", "green"))]
    scores = score_cases(colour_model(), colours(tmp_path, cases)).scores
    assert scores.tolist() == [[[1, 0, -torch.inf]], [[1, 0, 0]]]


def test_many_cases_are_scored_as_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = ["red", "green", "blue", "white", "black"]
    cases = [Case(a + b, (a, b), (f"{a} {b}", b)) for a in names for b in names if a != b]
    found = colours(tmp_path, cases)
    together = score_cases(colour_model(), found).scores
    monkeypatch.setattr("lateen.evaluation.cases._CHUNK", 3)
    assert torch.equal(score_cases(colour_model(), found).scores, together)


def test_equal_embeddings_give_exactly_equal_scores(tmp_path: Path):
    cases = [Case(str(i), ("red", "blue"), ("a red fox", f"red {i}")) for i in range(50)]
    scores = score_cases(colour_model(BlindEncoder()), colours(tmp_path, cases)).scores
    assert scores.unique().numel() == 1


def test_missing_and_damaged_images_leave_their_cases_out_with_the_reason(tmp_path: Path):
    cases = [
        Case("1", ("red", "absent"), ("red", "blue")),
        Case("2", ("bad", "red"), ("red", "blue")),
        Case("3", ("red", "blue"), ("red", "blue")),
    ]
    skip = Skip("0", "a caption is missing", "f:1")
    scored = score_cases(colour_model(), colours(tmp_path, cases, (skip,)))
    assert [case.id for case in scored.cases] == ["3"]
    assert scored.scores.shape == (1, 2, 2)
    assert [(o["id"], o["reason"][:19]) for o in scored.left_out] == [
        ("0", "a caption is missin"), ("1", "image absent: there"), ("2", "image bad: not an i"),
    ]  # fmt: skip
    assert scored.counts()["left_out"] == 3
    assert scored.counts()["skipped"] == 3


def test_only_the_first_left_out_are_named(tmp_path: Path):
    cases = [Case(f"{i}", ("absent",), ("a", "b")) for i in range(30)]
    found = colours(tmp_path, [*cases, Case("30", ("red",), ("red", "blue"))])
    counts = score_cases(colour_model(), found).counts()
    assert (counts["left_out"], len(counts["left_out_examples"]), counts["skipped"]) == (30, 20, 1)


def test_nothing_to_score_stops(tmp_path: Path):
    cases = [Case("1", ("red", "absent"), ("red", "blue"))]
    with pytest.raises(DataError, match=r"not one of the 1 examples .*there is no absent"):
        score_cases(colour_model(), colours(tmp_path, cases))


def test_embeddings_of_several_prompts_are_averaged(tmp_path: Path):
    cases = [Case("1", ("red",), ("red", "blue"))]
    found = colours(tmp_path, cases)
    model = colour_model()
    scores = score_cases(model, found, templates=("{}", "{} on white")).scores[0, 0]
    text = model.encode_text(["red", "red on white"]).mean(0)
    expected = torch.nn.functional.normalize(text, dim=0)[0]
    torch.testing.assert_close(scores, torch.tensor([expected, 0.0]))
    one = score_cases(model, found, templates=("{} on white",)).scores[0, 0]
    torch.testing.assert_close(one, torch.tensor([0.5**0.5, 0.0]))


@pytest.mark.parametrize("templates", [(), ("a photo",)])
def test_templates_without_a_place_for_the_caption_stop(tmp_path: Path, templates: tuple[str, ...]):
    found = colours(tmp_path, [Case("1", ("red",), ("red", "blue"))])
    with pytest.raises(UsageError, match="no place for the caption"):
        score_cases(colour_model(), found, templates=templates)


def test_features_are_kept_where_asked_and_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = colours(tmp_path, [Case("1", ("red", "blue"), ("red", "blue"))])
    first = score_cases(colour_model(), found, cache=tmp_path / "cache")
    assert {path.name for path in (tmp_path / "cache").iterdir()} >= {"images", "captions"}

    def refuse(*_):
        raise AssertionError("encoded again")

    monkeypatch.setattr(PaletteEncoder, "encode", refuse)
    again = score_cases(colour_model(), found, cache=tmp_path / "cache")
    assert torch.equal(again.scores, first.scores)
    assert again.data == first.data
