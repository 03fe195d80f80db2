import torch
from PIL import Image

from lateen.encoders import load_encoder


def test_raw_pixels_are_the_mean_colours_of_a_grid() -> None:
    encoder = load_encoder("lateen.encoders.baselines:raw_pixels", "image")
    image = Image.new("RGB", (32, 32), "black")
    image.paste((255, 0, 51), (0, 0, 2, 1))  # the upper half of the first cell
    features = encoder.encode(encoder.prepare([image]))
    assert features.shape == (1, encoder.info.dim)
    cells = features.view(16, 16, 3)
    torch.testing.assert_close(cells[0, 0], torch.tensor([0.5, 0, 0.1]), atol=0.005, rtol=0)
    assert float(cells.sum()) == float(cells[0, 0].sum())


def test_a_bag_of_words_knows_words_but_not_their_order_case_or_number() -> None:
    encoder = load_encoder("lateen.encoders.baselines:bag_of_words", "text")
    texts = ["A dog bites a man", "a man bites, a DOG!", "two cats", "…"]
    same, also, other, none = encoder.encode(encoder.prepare(texts))
    assert torch.equal(same, also)
    assert float(same @ same) == 1.0
    assert abs(float(same @ other)) < 0.5
    assert float(none @ none) == 1.0  # nothing could be trained on a row of zeros
    assert int((same != 0).sum()) == 4  # a, dog, bites, man: no two of them share a place
