import pytest
import torch

from lateen.errors import DataError
from lateen.metrics.segmentation import confusion_matrix, segmentation, segmentation_baselines

NAMES = ["sky", "road", "car", "cat"]
TRUTH = torch.tensor([[0, 0, 0, 0], [1, 1, 2, -1]])
FOUND = torch.tensor([[0, 0, 0, 1], [1, 2, 2, 2]])


def test_by_hand():
    result = segmentation(confusion_matrix(FOUND, TRUTH, 4), NAMES)
    # sky: 3 of 4; road: 1 of {1, 1, the wrong one}; car: 1 of {2, the wrong one}; cat: nowhere.
    assert result["per_class"] == pytest.approx({"sky": 75, "road": 100 / 3, "car": 50})
    assert result["miou"] == pytest.approx((75 + 100 / 3 + 50) / 3)
    assert result["pixel_accuracy"] == pytest.approx(500 / 7)


def test_a_class_that_is_only_predicted_has_no_overlap_and_counts():
    found = FOUND.clone()
    found[0, 0] = 3
    result = segmentation(confusion_matrix(found, TRUTH, 4), NAMES)
    assert result["per_class"]["cat"] == 0
    assert result["miou"] == pytest.approx((50 + 100 / 3 + 50 + 0) / 4)


def test_pixels_of_no_class_do_not_count_and_no_prediction_is_wrong():
    truth, found = torch.tensor([0, 0, 1, 255, -1]), torch.tensor([0, -1, 9, 0, 1])
    confusion = confusion_matrix(found, truth, 2)
    assert confusion.tolist() == [[1, 0, 1], [0, 0, 1]]
    result = segmentation(confusion, NAMES[:2])
    assert result["per_class"] == {"sky": 50, "road": 0}
    assert result["pixel_accuracy"] == pytest.approx(100 / 3)


def test_matrices_of_images_add_up_to_that_of_all_pixels():
    generator = torch.Generator().manual_seed(0)
    truth, found = (torch.randint(-1, 5, (6, 7, 3), generator=generator) for _ in range(2))
    parts = sum(confusion_matrix(f, t, 4) for f, t in zip(found, truth, strict=True))
    assert torch.equal(parts, confusion_matrix(found, truth, 4))


def test_baselines_are_those_of_guessing_and_of_one_class():
    generator = torch.Generator().manual_seed(0)
    truth = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), 200_000, True, generator=generator)
    names = NAMES[:3]
    right = confusion_matrix(truth, truth, 3)
    baselines = segmentation_baselines(right, names)
    guessed = torch.randint(0, 3, truth.shape, generator=generator)
    drawn = segmentation(confusion_matrix(guessed, truth, 3), names)
    for key in ("miou", "pixel_accuracy"):
        assert baselines["chance"][key] == pytest.approx(drawn[key], abs=0.3)
    always = segmentation(confusion_matrix(torch.zeros_like(truth), truth, 3), names)
    del always["per_class"]
    assert baselines["best_constant"] == pytest.approx({"class": "sky", **always})


def test_nothing_to_measure_is_an_error():
    with pytest.raises(DataError, match="no pixel of any class"):
        segmentation(confusion_matrix(FOUND, torch.full_like(TRUTH, 255), 4), NAMES)
