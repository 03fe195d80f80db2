import math
from collections import Counter

import pytest

from lateen.demo.scene import ALL, COLOURS, HELD_OUT, SEEN, SHAPES, Thing, random_scene


def test_each_shape_and_each_colour_misses_two_partners():
    assert Counter(shape for shape, _ in HELD_OUT) == dict.fromkeys(SHAPES, 2)
    assert Counter(colour for _, colour in HELD_OUT) == dict.fromkeys(COLOURS, 2)
    assert len(SEEN) == 48
    assert not SEEN & HELD_OUT


def test_the_seed_decides_the_scene():
    first = random_scene("a", (3, 0, 7), ALL)
    assert first == random_scene("a", (3, 0, 7), ALL)
    assert first.things != random_scene("a", (3, 0, 8), ALL).things
    assert first.things != random_scene("a", (4, 0, 7), ALL).things


def test_things_lie_inside_the_picture_apart_and_differ():
    for i in range(200):
        things = random_scene("a", (0, i), SEEN).things
        assert 1 <= len(things) <= 3
        assert len({(t.shape, t.colour) for t in things}) == len(things)
        for k, thing in enumerate(things):
            assert (thing.shape, thing.colour) in SEEN
            assert thing.radius < thing.x < 1 - thing.radius
            assert thing.radius < thing.y < 1 - thing.radius
            for other in things[:k]:
                gap = math.hypot(thing.x - other.x, thing.y - other.y)
                assert gap > thing.radius + other.radius


def test_big_things_are_bigger_than_small_ones():
    things = [t for i in range(100) for t in random_scene("a", (1, i), ALL).things]
    small = [t.radius for t in things if t.size == "small"]
    big = [t.radius for t in things if t.size == "big"]
    assert small
    assert big
    assert max(small) < min(big)


@pytest.mark.parametrize(
    ("x", "y", "relation"),
    [(0.1, 0.4, "left of"), (0.9, 0.6, "right of"), (0.6, 0.1, "above"), (0.4, 0.9, "below")],
)
def test_a_relation_follows_the_longer_axis(x, y, relation):
    thing = Thing("star", "red", "big", x, y, 0.1, 0.0)
    assert thing.relation(Thing("ring", "blue", "big", 0.5, 0.5, 0.1, 0.0)) == relation
