import math

import pytest
import torch
from PIL import Image

from lateen.demo.descriptor import _edges, describe
from lateen.demo.drawing import draw
from lateen.demo.scene import COLOURS, HELD_OUT, SEEN, SHAPES, Scene, Thing, random_scene
from lateen.encoders.base import PatchEncoder


@pytest.fixture(scope="module")
def descriptor():
    return describe()


@pytest.fixture(scope="module")
def pictures():
    return [draw(random_scene("a", (2, i), SEEN)) for i in range(20)]


def _single(shape="star", colour="red", x=0.5, y=0.5, angle=0.0):
    thing = Thing(shape, colour, "big", x, y, 0.2, angle)
    return draw(Scene("a", "mist", (thing,), (0,)))


def _encode(descriptor, *pictures):
    return descriptor.encode(descriptor.prepare(pictures))


def test_it_is_a_patch_encoder(descriptor):
    assert isinstance(descriptor, PatchEncoder)
    assert descriptor.info.modality == "image"
    assert descriptor.info.dim <= 2048
    assert describe().info.key == descriptor.info.key


def test_a_batch_gives_what_each_picture_gives_alone(descriptor, pictures):
    batch = _encode(descriptor, *pictures)
    assert batch.shape == (20, descriptor.info.dim)
    assert batch.dtype == torch.float32
    alone = torch.cat([_encode(descriptor, picture) for picture in pictures])
    torch.testing.assert_close(batch, alone, atol=1e-5, rtol=0)
    assert torch.equal(batch, _encode(describe(), *pictures))


def test_patches_hold_the_picture_and_average_to_its_features(descriptor, pictures):
    prepared = descriptor.prepare(pictures)
    patches = descriptor.encode_patches(prepared)
    assert patches.shape == (20, 64, descriptor.info.dim)
    torch.testing.assert_close(patches.mean(1), descriptor.encode(prepared))


def test_patches_are_in_raster_order(descriptor):
    looks = [_single("circle", x=0.75, y=0.25), draw(Scene("a", "mist", (), (0,)))]
    filled, empty = descriptor.encode_patches(descriptor.prepare(looks))
    change = (filled - empty)[:, -86:].norm(dim=1).view(8, 8)  # the patches' own part
    assert change[1:3, 5:7].min() > 0.9
    assert change[4:].max() < 0.2
    assert change[:, :4].max() < 0.2


def test_nothing_prepared_gives_nothing(descriptor):
    assert descriptor.encode([]).shape == (0, descriptor.info.dim)
    assert descriptor.encode_patches([]).shape == (0, 64, descriptor.info.dim)


@pytest.mark.parametrize("colour", ["black", "white", "grey", "red"])
@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2000, 3000)])
def test_plain_pictures_of_any_size_are_finite_and_alike(descriptor, colour, size):
    features = _encode(descriptor, Image.new("RGB", size, colour))
    assert features.isfinite().all()
    torch.testing.assert_close(features, _encode(descriptor, Image.new("RGB", (128, 128), colour)))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK"])
def test_other_modes_are_read_as_rgb(descriptor, mode):
    assert _encode(descriptor, _single().convert(mode)).isfinite().all()


def test_features_fit_half_precision(descriptor, pictures):
    features = _encode(descriptor, *pictures)
    assert features.min() >= 0
    assert features.max() <= 1


def test_different_colours_and_shapes_give_different_features(descriptor):
    looks = [_single(colour=colour) for colour in COLOURS]
    looks += [_single(shape=shape) for shape in SHAPES if shape != "star"]
    features = _encode(descriptor, *looks)
    distances = torch.cdist(features, features) + 9 * torch.eye(len(looks))
    assert distances.min() > 0.1


def test_the_correlogram_of_two_edges_worked_by_hand(descriptor):
    edges = torch.zeros(1, 8, 64, 64)
    edges[0, 0, 10, 10] = 2.0  # points right
    edges[0, 2, 10, 16] = 3.0  # points down, 6 cells = 2 octaves over 1.5 to the right
    expected = torch.zeros(8, 5, 8)  # turn, octave, bearing
    expected[2, 2, 0] = 6.0  # from the first: a quarter turn, straight ahead
    expected[6, 2, 2] = 6.0  # from the second: a quarter turn back, a quarter turn aside
    torch.testing.assert_close(
        descriptor._correlogram(edges).view(8, 5, 8), expected, atol=1e-4, rtol=0
    )


def test_the_correlogram_ignores_where_a_shape_is_and_how_it_is_turned(descriptor):
    def correlogram(picture):
        pixels = torch.stack(descriptor.prepare([picture])).float() / 255
        return descriptor._correlogram(_edges(descriptor._figure(pixels)))[0]

    here = correlogram(_single("heart"))
    for other in (
        _single("heart", x=0.3, y=0.6),
        _single("heart").transpose(Image.Transpose.ROTATE_90),
        _single("heart", colour="green"),
        _single("heart", angle=math.pi / 4),
    ):
        assert torch.cosine_similarity(here, correlogram(other), dim=0) > 0.99
    assert torch.cosine_similarity(here, correlogram(_single("cross")), dim=0) < 0.9


def test_shape_and_colour_of_combinations_never_seen_can_be_read_off_linearly(descriptor):
    seen = [random_scene("a", (0, i), SEEN, count=1) for i in range(250)]
    unseen = [random_scene("a", (1, i), HELD_OUT, count=1) for i in range(60)]
    x = _encode(descriptor, *map(draw, seen)).double()
    z = _encode(descriptor, *map(draw, unseen)).double()
    for attribute, classes in (("shape", SHAPES), ("colour", tuple(COLOURS))):

        def labels(scenes, attribute=attribute, classes=classes):
            return torch.tensor([classes.index(getattr(s.things[0], attribute)) for s in scenes])

        targets = torch.nn.functional.one_hot(labels(seen), 8).double() - 1 / 8
        mean = x.mean(0)
        weights = torch.linalg.lstsq((x - mean), targets, driver="gelsd").solution
        guesses = ((z - mean) @ weights).argmax(1)
        assert (guesses == labels(unseen)).double().mean() > 0.8
