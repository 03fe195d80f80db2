import pytest
import torch

from lateen.errors import DataError
from lateen.metrics import class_embeddings, classification


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
