import numpy as np
import pytest
from PIL import Image

from lateen.report.overlays import (
    attention_overlay,
    class_colours,
    picture_name,
    segmentation_overlay,
    spread,
)

NAMES = ["sky", "road", "car", "<b>大</b>"]


def words(figure):
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def test_colours_do_not_depend_on_how_many_there_are_and_differ():
    many = class_colours(171)
    np.testing.assert_array_equal(class_colours(20), many[:20])
    assert many.min() >= 0 and many.max() <= 1
    for count, least in ((20, 0.15), (60, 0.03)):
        gaps = np.linalg.norm(many[:count, None] - many[None, :count], axis=-1)
        assert gaps[~np.eye(count, dtype=bool)].min() > least


def test_the_legend_has_the_classes_that_are_there_the_largest_first():
    predicted = np.array([[1, 1, 1], [1, 3, 1]])
    truth = np.array([[3, 3, 3], [1, -1, 3]])
    figure = segmentation_overlay(Image.new("RGB", (30, 20)), predicted, truth, NAMES, title="a")
    assert words(figure) == ["road", "<b>大</b>"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "predicted", "true"]


def test_what_has_no_class_is_bare_and_what_was_not_found_is_dark():
    predicted, truth = np.array([[0, -1, 2]]), np.array([[0, 1, -1]])
    figure = segmentation_overlay(Image.new("RGB", (30, 10)), predicted, truth, NAMES)
    found, true = (axes.images[1].get_array() for axes in figure.axes[1:])
    assert found[0, 1, :3].tolist() == [0, 0, 0] and found[0, 1, 3] > 0
    assert found[0, 2, 3] == true[0, 2, 3] == 0
    np.testing.assert_allclose(found[0, 0], true[0, 0])
    np.testing.assert_allclose(true[0, 1, :3], class_colours(2)[1])


def test_many_classes_leave_the_smallest_out_of_the_legend():
    labels = np.arange(100).repeat(np.arange(1, 101)).reshape(50, 101)
    names = [f"class {i}" for i in range(100)]
    figure = segmentation_overlay(Image.new("RGB", (101, 50)), labels, labels, names)
    assert words(figure) == [f"class {i}" for i in range(99, 75, -1)]


@pytest.mark.parametrize(("heads", "shown"), [(2, [0, 11]), (4, [0, 4, 7, 11]), (20, range(12))])
def test_attention_shows_the_mean_and_some_heads(heads, shown):
    maps = np.random.default_rng(0).random((12, 4, 5))
    figure = attention_overlay(np.zeros((8, 10, 3)), maps, title="a.jpg", heads=heads)
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["a.jpg", "mean of heads", *[f"head {i}" for i in shown]]
    np.testing.assert_allclose(figure.axes[1].images[1].get_array(), maps.mean(0))
    np.testing.assert_allclose(figure.axes[2].images[1].get_array(), maps[0])


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"),
    [(10, 3, {0, 4, 9}), (3, 8, {0, 1, 2}), (5, 1, {0}), (5, 0, set()), (0, 3, set())],
)
def test_what_is_shown_is_evenly_spread(count, wanted, chosen):
    assert spread(count, wanted) == chosen


def test_pictures_of_samples_with_like_names_are_kept_apart():
    assert picture_name("a/b", ["a-b.jpg"]) == "a-b.png"
    assert picture_name("a-b", ["a-b.png", "a-b-2.png"]) == "a-b-3.png"
