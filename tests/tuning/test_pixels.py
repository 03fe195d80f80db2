"""The images that a tower is tuned on, as both encoders see them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from tuner_toys import IMAGES, own_cache, photographs, prepared

from lateen.data import decode_image
from lateen.errors import DataError, TrainingError
from lateen.training.batches import Batch
from lateen.training.ranks import Ranks
from lateen.tuning.preparation import Preparation

Prepare = Callable[..., Preparation]


@pytest.fixture(scope="module")
def wide_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target that sees images at another resolution and with other means than the student."""
    from transformers import ViTConfig, ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    folder = tmp_path_factory.mktemp("wide-vit")
    torch.manual_seed(1)
    config = ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        image_size=48, patch_size=8,
    )  # fmt: skip
    ViTModel(config).save_pretrained(folder)
    processor = ViTImageProcessorPil(
        size={"height": 48, "width": 48}, image_mean=[0.1, 0.2, 0.3], image_std=[0.9, 0.8, 0.7]
    )
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wider than high, so that cropping is another thing than stretching."""
    return photographs(tmp_path_factory.mktemp("photographs"), size=(6, 4))


@pytest.fixture(scope="module")
def prepare(
    clip_folder: Path, wide_vit: Path, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prepare]:
    def make(**settings: Any) -> Preparation:
        return prepared(clip_folder, wide_vit, images, **settings)

    with own_cache(tmp_path_factory.mktemp("cache")):
        yield make


def batches(prepared: Preparation, steps: Sequence[int], ranks: Ranks | None = None) -> list[Batch]:
    source = prepared.source(ranks or Ranks())
    return list(source.stream(part for step in steps for part in source.parts(step)))


def names(prepared: Preparation, step: int) -> list[str]:
    return [prepared.train.pairs.ids[int(i)] for p in prepared.source().parts(step)
            for i in p.samples]  # fmt: skip


def seen(prepared: Preparation, views: Sequence[Image.Image]) -> Tensor:
    """What target and start give for images, each by itself."""
    target = prepared.target.encode(prepared.target.prepare(views))
    features = prepared.encoder.encode(prepared.encoder.prepare(views))
    return torch.cat([target, prepared.start.project_image(features, normalize=False)], 1)


@pytest.mark.parametrize("live", [False, True])
def test_the_reference_is_what_target_and_start_give(prepare: Prepare, live: bool) -> None:
    this = prepare(tune__patches=live)
    [batch] = batches(this, [1])
    views = [decode_image(this.train.sources[name]) for name in names(this, 1)]
    pixels = torch.stack(this.encoder.prepare(views))
    torch.testing.assert_close(batch.image, pixels, rtol=0, atol=0)
    assert pixels.shape[2:] == (32, 32)
    assert this.target.prepare(views)[0].shape[1:] == (48, 48)
    expected = seen(this, views)
    # A store keeps the target's features in float16.
    close = {"rtol": 1e-5, "atol": 1e-5} if live else {"rtol": 2e-3, "atol": 2e-3}
    torch.testing.assert_close(batch.texts[0][:, : 12 + 8], expected, **close)
    torch.testing.assert_close(batch.texts[0][:, 12:20], expected[:, 12:], rtol=1e-5, atol=1e-5)
    if live:
        patches = this.target.encode_patches(this.target.prepare(views))  # type: ignore[attr-defined]
        assert patches.shape[1:] == (36, 12)
        torch.testing.assert_close(batch.texts[0][:, 20:], patches.flatten(1))


def test_every_image_is_seen_once_in_an_epoch(prepare: Prepare) -> None:
    this = prepare(tune__batch=8)
    source = this.source()
    assert source.steps == 4 * 3
    for epoch in range(2):
        each = [name for step in range(3) for name in names(this, 3 * epoch + step)]
        assert sorted(each) == sorted(this.train.pairs.ids)
    held_out = set(this.held_out.pairs.ids)
    assert held_out.isdisjoint(this.train.pairs.ids)
    assert len(held_out) + len(this.train) == IMAGES


def test_both_encoders_see_one_crop(prepare: Prepare) -> None:
    """The view is found from the student's pixels: the reference is that of the same view."""
    this = prepare(tune__augment="crop")
    [batch] = batches(this, [2])
    plain = [decode_image(this.train.sources[name]) for name in names(this, 2)]
    untouched = torch.stack(this.encoder.prepare(plain))
    assert not torch.allclose(batch.image, untouched)
    features = this.encoder.encode(list(batch.image))
    start = this.start.project_image(features, normalize=False)
    torch.testing.assert_close(batch.texts[0][:, 12:], start, rtol=1e-5, atol=1e-5)
    from lateen.tuning.source import _random_view

    rows = this.source().rows(2)[0]
    views = [_random_view(image, rows, index) for index, image in enumerate(plain)]
    assert all(view.size == image.size for view, image in zip(views, plain, strict=True))
    torch.testing.assert_close(batch.texts[0], seen(this, views), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(batch.texts[0][:, :12], seen(this, plain)[:, :12], atol=1e-4)


def test_a_crop_depends_on_seed_and_step_alone(prepare: Prepare) -> None:
    this = prepare(tune__augment="crop")
    all_steps = batches(this, range(5))
    again = batches(this, range(3, 5))  # a run that goes on at step 3
    for one, two in zip(all_steps[3:], again, strict=True):
        assert torch.equal(one.image, two.image)
        assert torch.equal(one.texts[0], two.texts[0])
    parts = batches(prepare(tune__augment="crop", tune__micro_batch=3), [3])
    assert len(parts) > 1
    assert torch.equal(torch.cat([part.image for part in parts]), all_steps[3].image)
    shares = [batches(this, [3], Ranks(rank, 2))[0] for rank in range(2)]
    assert torch.equal(torch.cat([share.image for share in shares]), all_steps[3].image)
    other = batches(prepare(tune__augment="crop", tune__seed=1), [3])[0]
    assert not torch.equal(other.image, all_steps[3].image)


def test_the_target_sees_each_view_once_though_the_step_goes_over_it_twice(
    prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    this = prepare(tune__augment="crop", tune__micro_batch=3)
    source = this.source()
    encode, seen = this.target.encode, []

    def counted(prepared: Sequence[Tensor]) -> Tensor:
        seen.append(len(prepared))
        return encode(prepared)

    monkeypatch.setattr(this.target, "encode", counted)
    steps = [[*source.parts(step)] * 2 for step in range(2)]
    found = list(source.stream(part for parts in steps for part in parts))
    assert sum(seen) == sum(part.rows.count for parts in steps for part in parts) // 2
    once = len(steps[0]) // 2
    first, second = found[:once], found[once : 2 * once]
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one.texts[0], two.texts[0])
        assert torch.equal(one.image, two.image)


def test_some_crops_are_mirrored_and_none_is_small() -> None:
    from lateen.training.batches import BatchRows
    from lateen.tuning.source import _random_view

    # Red grows to the right and green downwards: a view's corners tell where it was cut.
    ramp = np.zeros((80, 120, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(120)[None] * 2, np.arange(80)[:, None] * 3
    rows = BatchRows(0, 4, 0, 40)
    mirrored = 0
    for index in range(40):
        view = np.asarray(_random_view(Image.fromarray(ramp), rows, index), float)
        right = (view[40, -1, 0] - view[40, 0, 0]) / 2
        down = (view[-1, 60, 1] - view[0, 60, 1]) / 3
        mirrored += right < 0
        assert 0.45 < abs(right) / 120 * down / 80 <= 1.0
        assert abs(right) / 120 == pytest.approx(down / 80, abs=0.05)
    assert 10 < mirrored < 30


# -- what cannot be read --------------------------------------------------------------------------


def test_an_image_that_cannot_be_read_is_left_out_and_counted(
    clip_folder: Path, vit_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = photographs(tmp_path / "photographs")
    (folder / "red" / "p0.png").write_bytes(b"no picture")
    with caplog.at_level("INFO", "lateen"):
        this = prepared(clip_folder, vit_folder, folder)
    assert len(this.train) + len(this.held_out) == IMAGES - 1
    assert "held out for the kernel term, 1 could not be read" in caplog.text


def test_an_image_that_vanishes_in_training_is_named(
    clip_folder: Path, vit_folder: Path, tmp_path: Path
) -> None:
    folder = photographs(tmp_path / "photographs")
    this = prepared(clip_folder, vit_folder, folder)
    [gone, *_] = names(this, 1)
    (folder / gone).unlink()
    source = this.source()
    stream = source.stream(part for step in range(3) for part in source.parts(step))
    next(stream)
    with pytest.raises(TrainingError, match=rf"image {gone} could be read when it was encoded.*"
                       r"run the same command again: it goes on at the last"):  # fmt: skip
        list(stream)


def test_too_few_images(clip_folder: Path, vit_folder: Path, tmp_path: Path) -> None:
    for count in (1, 3):
        folder = photographs(tmp_path / str(count), count=count)
        with pytest.raises(DataError, match=rf"both encoders can read {count}\. Give more"):
            prepared(clip_folder, vit_folder, folder)
    this = prepared(clip_folder, vit_folder, photographs(tmp_path / "3", count=4))
    assert (len(this.train), len(this.held_out)) == (2, 2)


def test_batches_too_small_for_the_processes(prepare: Prepare) -> None:
    with pytest.raises(TrainingError, match=r"batch 2 leaves batches of one image.*Raise tune"):
        prepare(tune__batch=2).source()
    with pytest.raises(TrainingError, match=r"batches of 3 images cannot be shared by 5 proc"):
        prepare(tune__batch=4).source(Ranks(0, 5))


def test_a_share_of_the_images_is_within_the_larger_share(prepare: Prepare) -> None:
    quarter, half, whole = (prepare(tune__fraction=share) for share in (0.25, 0.5, 1.0))
    ids = [set(each.train.pairs.ids) for each in (quarter, half, whole)]
    assert ids[0] < ids[1] < ids[2]
    assert [len(each) for each in ids] == [5, 9, 19]
    assert {tuple(each.held_out.pairs.ids) for each in (quarter, half)} == {
        tuple(whole.held_out.pairs.ids)
    }


def test_a_large_photograph_is_trained_on_as_it_was_encoded(
    clip_folder: Path, wide_vit: Path, tmp_path: Path
) -> None:
    """JPEGs are decoded at an eighth of their size where an encoder needs no more."""
    random = np.random.default_rng(0)
    for number in range(8):
        coarse = random.integers(0, 255, (20, 30, 3)).astype(np.uint8)
        picture = Image.fromarray(coarse).resize((900, 600), Image.Resampling.BICUBIC)
        picture.save(tmp_path / f"large{number}.jpg", quality=95)
    with own_cache(tmp_path / "cache"):
        this = prepared(clip_folder, wide_vit, tmp_path)
        [batch] = batches(this, [0])
        embedded = this.start.project_image(this.encoder.encode(list(batch.image)), normalize=False)
        torch.testing.assert_close(embedded, batch.texts[0][:, 12:20], rtol=1e-4, atol=1e-5)
        whole = [decode_image(this.train.sources[name]) for name in names(this, 0)]
        assert not torch.equal(batch.image, torch.stack(this.encoder.prepare(whole)))
