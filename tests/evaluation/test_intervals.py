import numpy as np
import pytest

from lateen.evaluation.intervals import paired_difference, redrawn, resampled, shares


def drawn(right: list[int]):
    result = resampled(shares, {"top1": right}, map(str, range(len(right))))
    found = redrawn(result, shares)
    assert found is not None
    return found["top1"]


def test_a_difference_is_of_the_same_draws():
    """Of 100 images, 50 of them right, ten more become right: what is right in both cancels."""
    first, second = [1] * 60 + [0] * 40, [1] * 50 + [0] * 50
    found = paired_difference(drawn(first), drawn(second))
    low, high = found.interval
    apart = np.hypot(*(np.std(drawn(each).scores) for each in (first, second)))
    assert found.significant
    assert 0 < low < 10 < high
    assert high - low < 2 * 1.96 * apart  # than of two draws that have nothing to do with it
    back = paired_difference(drawn(second), drawn(first))
    assert back.significant
    assert back.interval == pytest.approx((-high, -low))


def test_the_same_is_no_difference():
    right = [1, 0] * 20
    assert paired_difference(drawn(right), drawn(right)) == ((0, 0), False)


@pytest.mark.parametrize(("changed", "significant"), [(5, False), (6, True)])
def test_few_images_tell_nothing(changed, significant):
    first, second = [1] * changed + [0] * 94, [0] * (changed + 94)
    found = paired_difference(drawn(first), drawn(second))
    assert found.interval[0] > 0  # be they all for the better
    assert found.significant is significant
