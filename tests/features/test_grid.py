from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import ColourEncoder, WordEncoder

from lateen.errors import PairingError
from lateen.features import Store, encode, import_features, pair, pair_grid


@pytest.fixture
def stores(album: Path) -> tuple[Store, Store, Store]:
    """Two image stores, of which the second lacks an image that could not be read; and texts."""
    first = encode(album / "images", ColourEncoder(), album / "a")
    (album / "images" / "003.png").write_bytes(b"not a picture")
    second = encode(album / "images", ColourEncoder(), album / "b")
    return first, second, encode(album / "train.jsonl", WordEncoder(), album / "t")


def test_every_pair_has_the_same_samples(stores: tuple[Store, Store, Store]) -> None:
    first, second, texts = stores
    grid = pair_grid([first, second], [[texts], [texts, texts]])
    ids = [f"{i:03d}.png" for i in range(24) if i != 3]
    assert [len(row) for row in grid] == [2, 2]
    for row, store in zip(grid, (first, second), strict=True):
        for pairs, columns in zip(row, (1, 2), strict=True):
            assert pairs.ids == ids
            assert len(pairs.texts) == columns
            plain = pair(store, texts)
            keep = [plain.ids.index(i) for i in ids]
            assert torch.equal(pairs.image_features(slice(None)), plain.image_features(keep))
            assert torch.equal(pairs.all_texts()[0], plain.take(keep).all_texts()[0])
    assert grid[0][0].key == pair_grid([first, second], [[texts]])[0][0].key
    assert grid[0][0].key != pair(first, texts).key


def imported(path: Path, ids: list[str]) -> Store:
    np.save(path.with_suffix(".npy"), np.random.default_rng(0).normal(size=(len(ids), 5)))
    return import_features(
        path.with_suffix(".npy"), path, ids=ids, modality="image", encoder="mine"
    )


def test_other_ids_are_an_error_or_left_out(
    tmp_path: Path, stores: tuple[Store, Store, Store]
) -> None:
    first, _, texts = stores
    ids = ["zebra.png", *first.ids[1:]]
    other = imported(tmp_path / "o", ids)
    with pytest.raises(PairingError, match=r"'000.png'.*'zebra.png'"):
        pair_grid([first, other], [[texts]])
    dropped = pair_grid([first, other], [[texts]], missing="drop")
    assert dropped[1][0].ids == first.ids[1:]
    far = imported(tmp_path / "f", ["far.png"])
    with pytest.raises(PairingError, match="no image is in all of the 2 image stores"):
        pair_grid([first, far], [[texts]], missing="drop")


def test_texts_among_the_images_are_refused(stores: tuple[Store, Store, Store]) -> None:
    first, _, texts = stores
    with pytest.raises(PairingError, match="text features where image features belong"):
        pair_grid([first, texts], [[texts]])


class _PartlyBlind(WordEncoder):
    """Reads one caption of picture 005 less than the others do."""

    def __init__(self, blind: str) -> None:
        super().__init__()
        self.blind = blind
        self.info = replace(self.info, id=blind, weights=blind)

    def encode(self, prepared: Sequence[str]) -> torch.Tensor:
        features = super().encode(prepared)
        features[[text == self.blind for text in prepared]] = torch.nan
        return features


def test_a_caption_that_one_encoder_could_not_read_leaves_its_image_for_all(
    album: Path, stores: tuple[Store, Store, Store]
) -> None:
    first, _, texts = stores
    one, other = (
        encode(album / "train.jsonl", _PartlyBlind(text), album / f"t{i}")
        for i, text in enumerate(("yellow number 5", "a yellow picture"))
    )
    [[whole, cut]] = pair_grid([first], [[texts], [one]])
    assert whole.ids == cut.ids == [i for i in first.ids if i != "005.png"]
    assert whole.texts[0].counts.tolist() == cut.texts[0].counts.tolist()
    # As many captions of 005, but not the same.
    assert "005.png" not in pair_grid([first], [[one], [other]])[0][0].ids
    assert whole.dropped == 1


def test_other_captions_are_refused(album: Path, stores: tuple[Store, Store, Store]) -> None:
    first, _, texts = stores
    np.save(album / "c.npy", np.random.default_rng(0).normal(size=(24, 5)))
    single = import_features(
        album / "c.npy", album / "c", ids=first.ids, modality="text", encoder="mine"
    )
    with pytest.raises(PairingError, match=r"24 images .* '000\.png' has 2 and 1"):
        pair_grid([first], [[texts], [single]])
    with pytest.raises(PairingError, match="the same captions in all text stores"):
        pair_grid([first], [[texts], [single]], missing="drop")
