import sys

import pytest
import torch

from lateen.errors import DataError, LateenError
from lateen.metrics import class_embeddings, classification, confusion_matrix, most_confused


def test_a_matrix_worked_by_hand() -> None:
    """Three classes on the axes; images a, b right, c wrong, d right.

    a = (1, 0, 0) class 0: scores 1, 0, 0
    b = (.6, .8, 0) class 1: .6, .8, 0
    c = (.6, .8, 0) class 0: second best
    d = (0, 0, 1) class 2
    """
    image = torch.tensor([[1, 0, 0], [0.6, 0.8, 0], [0.6, 0.8, 0], [0, 0, 1]])
    result = classification(image, torch.eye(3), torch.tensor([0, 1, 0, 2]), ["x", "y", "z"])
    assert result["top1"] == 75
    assert result["top5"] == 100
    assert result["per_class"] == {"x": 50, "y": 100, "z": 100}


def test_collapsed_embeddings_score_nothing() -> None:
    image = torch.ones(6, 4) / 2
    classes = torch.ones(10, 4) / 2
    result = classification(image, classes, torch.arange(6), [str(i) for i in range(10)])
    assert result["top1"] == 0
    assert result["top5"] == 0


def test_prompts_are_averaged_and_normalised_again() -> None:
    prompts = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    torch.testing.assert_close(class_embeddings(prompts), torch.full((1, 2), 0.5**0.5))


def test_one_class_or_no_image_is_an_error() -> None:
    with pytest.raises(DataError, match="1 classes"):
        classification(torch.ones(1, 2), torch.ones(1, 2), torch.zeros(1, dtype=torch.long), ["x"])
    with pytest.raises(DataError, match="no image"):
        classification(torch.ones(0, 2), torch.eye(2), torch.zeros(0).long(), ["x", "y"])


def test_each_class_counts_the_same_in_the_mean_per_class() -> None:
    """Class x: 3 of 4 right, y: 0 of 1, z has no image: (75 + 0) / 2, and top-1 3 of 5."""
    image = torch.tensor([[1.0, 0, 0]] * 3 + [[0, 1.0, 0], [1.0, 0, 0]])
    result = classification(image, torch.eye(3), torch.tensor([0, 0, 0, 0, 1]), ["x", "y", "z"])
    assert result["mean_per_class"] == 37.5
    assert result["top1"] == 60
    assert "z" not in result["per_class"]


def test_a_confusion_matrix_worked_by_hand() -> None:
    """Rows are the right class: two of x, one of them taken for z; one of y, taken for x."""
    image = torch.tensor([[1, 0, 0], [0.6, 0, 0.8], [0.8, 0.6, 0]])
    labels = torch.tensor([0, 0, 1])
    counts = confusion_matrix(image, torch.eye(3), labels)
    assert counts.tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert most_confused(counts, ["x", "y", "z"]) == [
        {"class": "y", "taken_for": "x", "images": 1, "percent": 100.0},
        {"class": "x", "taken_for": "z", "images": 1, "percent": 50.0},
    ]
    assert len(most_confused(counts, ["x", "y", "z"], limit=1)) == 1


def test_the_diagonal_counts_what_is_right_ties_and_chunks_included(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)
    # Few values, so that scores tie often.
    image = torch.randint(0, 2, (200, 3), generator=generator).float()
    classes = torch.randint(0, 2, (7, 3), generator=generator).float()
    labels = torch.randint(0, 7, (200,), generator=generator)
    names = list("abcdefg")
    result = classification(image, classes, labels, names)
    counts = confusion_matrix(image, classes, labels)
    right = 100 * counts.diag().double() / counts.sum(1)
    assert right.tolist() == pytest.approx([result["per_class"][name] for name in names])
    assert counts.sum(1).tolist() == torch.bincount(labels, minlength=7).tolist()
    monkeypatch.setattr(sys.modules[classification.__module__], "_CHUNK", 13)
    assert torch.equal(confusion_matrix(image, classes, labels), counts)


def test_collapsed_embeddings_are_always_taken_for_another_class() -> None:
    counts = confusion_matrix(torch.ones(6, 4) / 2, torch.ones(3, 4) / 2, torch.arange(6) % 3)
    assert counts.diag().tolist() == [0, 0, 0]


@pytest.mark.parametrize("count", [3, 10, 17, 100, 1001])
@pytest.mark.parametrize("images", [1, 7, 500])
def test_equal_classes_tie_whatever_the_products_round(count: int, images: int) -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.nn.functional.normalize(torch.randn(images, 384, generator=generator), dim=-1)
    one = torch.nn.functional.normalize(torch.randn(1, 384, generator=generator), dim=-1)
    labels = torch.arange(images) % count
    result = classification(image, one.repeat(count, 1), labels, list(map(str, range(count))))
    assert (result["top1"], result["mean_per_class"]) == (0, 0)


@pytest.mark.parametrize("side", ["image", "classes"])
def test_embeddings_that_are_no_numbers_are_no_full_marks(side: str) -> None:
    values = {"image": torch.eye(3), "classes": torch.eye(3)}
    values[side] = values[side].clone()
    values[side][1, 1] = torch.nan
    labels = torch.arange(3)
    with pytest.raises(LateenError, match="NaN"):
        classification(values["image"], values["classes"], labels, ["x", "y", "z"])
    with pytest.raises(LateenError, match="NaN"):
        confusion_matrix(values["image"], values["classes"], labels)
