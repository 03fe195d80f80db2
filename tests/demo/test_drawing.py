import numpy as np
import pytest

from lateen.demo.drawing import SIDE, draw
from lateen.demo.scene import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing


def _draw(shape="square", colour="red", background="mist", radius=0.2, x=0.5, y=0.5, seed=0):
    thing = Thing(shape, colour, "big", x, y, radius, 0.0)
    return np.asarray(draw(Scene("a", background, (thing,), (seed,)))).astype(int)


def _mask(shape):
    """Where the picture is nearer to the thing's colour than to the background's."""
    picture, colour = _draw(shape), np.array(COLOURS["red"])
    ground = np.array(BACKGROUNDS["mist"])
    return np.abs(picture - colour).sum(2) < np.abs(picture - ground).sum(2)


def test_a_picture_is_the_same_every_time():
    assert _draw().shape == (SIDE, SIDE, 3)
    assert (_draw() == _draw()).all()
    assert (_draw(seed=1) != _draw()).any()


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_colour_and_background_are_those_named(colour, background):
    picture = _draw(colour=colour, background=background)
    middle = picture[SIDE // 2 - 5 : SIDE // 2 + 5, SIDE // 2 - 5 : SIDE // 2 + 5].mean((0, 1))
    nearest = min(COLOURS, key=lambda name: np.abs(middle - COLOURS[name]).sum())
    assert nearest == colour
    rim = np.concatenate([picture[:4], picture[-4:]]).mean((0, 1))
    assert min(BACKGROUNDS, key=lambda n: np.abs(rim - BACKGROUNDS[n]).sum()) == background


@pytest.mark.parametrize(
    ("shape", "area"),
    [
        ("circle", np.pi),
        ("ring", np.pi * (1 - 0.55**2)),
        ("square", 1.72**2),
        ("triangle", 1.1**2 * 3 * np.sqrt(3) / 4),
        ("star", 1.08**2 * 5 * 0.42 * np.sin(np.pi / 5)),
        ("cross", 4 * 0.95 * 0.6 - 0.6**2),
    ],
)
def test_the_area_is_that_of_the_shape(shape, area):
    assert _mask(shape).sum() == pytest.approx(area * (0.2 * SIDE) ** 2, rel=0.07)


def test_the_shapes_differ():
    masks = [_mask(shape) for shape in SHAPES]
    for i, mask in enumerate(masks):
        for other in masks[:i]:
            assert (mask ^ other).sum() > 0.1 * (mask | other).sum()


def test_a_thing_at_the_edge_is_cut_off():
    picture = _draw(x=1.0, y=0.0)
    assert picture.shape == (SIDE, SIDE, 3)
    assert picture[2, -3, 0] - picture[2, -3, 2] > 100
