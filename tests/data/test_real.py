from __future__ import annotations

from pathlib import Path

import pytest
from builders import samples, skips

from lateen.data import decode_image, open_dataset

pytestmark = pytest.mark.real


def test_flickr8k(real: Path) -> None:
    for split, images in (("train", 6000), ("dev", 1000)):
        dataset = open_dataset(real / "flickr8k" / f"{split}.csv")
        found = samples(dataset)
        assert dataset.columns == ("caption",)
        assert (len(found), skips(dataset)) == (images, [])
        assert all(len(sample.captions["caption"]) == 5 for sample in found)
        assert found[0].image is not None
        assert decode_image(found[0].image).size == (224, 224)


def test_imagenette(real: Path) -> None:
    dataset = open_dataset(real / "imagenette-mini")
    labels = [sample.label for sample in samples(dataset)]
    assert len(labels) == 800
    assert {labels.count(label) for label in set(labels)} == {80}
    for sample in samples(dataset)[::80]:
        assert sample.image is not None
        assert min(decode_image(sample.image).size) <= 256
