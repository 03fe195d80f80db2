from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lateen.evaluation.tasks.segmentation import (
    predict,
    resize_short_side,
    sliding_logits,
    window_starts,
)


@pytest.mark.parametrize(
    ("length", "window", "stride", "starts"),
    [
        (448, 448, 224, [0]),
        (672, 448, 224, [0, 224]),
        (597, 448, 224, [0, 149]),
        (10, 4, 3, [0, 3, 6]),
        (11, 4, 3, [0, 3, 6, 7]),
    ],
)
def test_windows_reach_both_ends(length: int, window: int, stride: int, starts: list[int]) -> None:
    assert window_starts(length, window, stride) == starts


@pytest.mark.parametrize(
    ("size", "result"), [((480, 360), (75, 56)), ((360, 480), (56, 75)), ((5, 5), (56, 56)),
                         ((56, 80), (56, 80)), ((16, 1), (896, 56))]
)  # fmt: skip
def test_the_short_side_is_exact(size: tuple[int, int], result: tuple[int, int]) -> None:
    assert resize_short_side(Image.new("RGB", size), 56).size == result


def test_a_thread_of_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="aspect ratio 17:1"):
        resize_short_side(Image.new("RGB", (17, 1)), 56)


def colours(windows: Sequence[Image.Image]) -> Tensor:
    """Patches of 4 pixels: their mean red, green, blue as logits."""
    values = torch.stack([torch.from_numpy(np.array(w, np.float32)) for w in windows])
    return F.avg_pool2d(values.permute(0, 3, 1, 2), 4)


def test_overlaps_are_averaged_as_written_out() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (16, 30, 3), np.uint8))
    total, count = torch.zeros(3, 16, 30), torch.zeros(16, 30)
    for left in (0, 8, 14):
        crop = image.crop((left, 0, left + 16, 16))
        score = F.interpolate(colours([crop]), size=(16, 16), mode="bilinear")[0]
        total[:, :, left : left + 16] += score
        count[:, left : left + 16] += 1
    assert set(count.unique().tolist()) == {1, 2, 3}
    torch.testing.assert_close(sliding_logits(image, colours, window=16, stride=8), total / count)


def test_many_windows_are_scored_some_at_a_time() -> None:
    sizes = []

    def score(windows: Sequence[Image.Image]) -> Tensor:
        sizes.append(len(windows))
        return colours(windows)

    image = Image.new("RGB", (64, 32), (10, 20, 30))
    logits = sliding_logits(image, score, window=16, stride=8)
    assert sizes == [8, 8, 5]
    assert logits.shape == (3, 32, 64)
    torch.testing.assert_close(logits[:, 5, 60], torch.tensor([10.0, 20.0, 30.0]))


def test_a_prediction_is_the_highest_of_all_classes_at_the_masks_size() -> None:
    logits = torch.randn(40, 6, 5, generator=torch.Generator().manual_seed(0))
    whole = F.interpolate(logits[None], size=(31, 17), mode="bilinear")[0]
    chosen, unsure = predict(logits, (31, 17), background=0.2)
    assert torch.equal(chosen, whole.argmax(0))
    assert torch.equal(unsure, whole.softmax(0).amax(0) < 0.2)
    assert 0 < unsure.float().mean() < 1
    assert not predict(logits, (31, 17))[1].any()


@pytest.mark.parametrize("places", [(3, 5), (3, 35), (20, 35)])
def test_a_shared_maximum_is_no_prediction(places: tuple[int, int]) -> None:
    # Whether or not both are among the classes that are brought to the mask's size together.
    logits = torch.zeros(40, 2, 2)
    logits[torch.tensor(places), 0, 0] = 1
    logits[7, 1, 1] = 2
    assert predict(logits, (2, 2))[0].tolist() == [[-1, -1], [-1, 7]]


def test_later_higher_classes_win_over_earlier_ties() -> None:
    logits = torch.zeros(40, 1, 1)
    logits[30] = 1
    assert predict(logits, (1, 1))[0].item() == 30


def test_what_is_no_number_is_no_prediction() -> None:
    logits = torch.full((3, 1, 1), float("nan"))
    assert predict(logits, (1, 1))[0].item() == -1
