from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import dense_toys
import numpy as np
import pytest
from benchmark_toys import check_intervals
from dense_toys import SMALL, Collapsed, stripes
from PIL import Image

from lateen.errors import DataError, EncoderError, LateenError, UsageError
from lateen.evaluation import TASKS
from lateen.evaluation.tasks.segmentation import evaluate_segmentation


def evaluate(places: dict[str, Path], vision: object | None = None, **options: Any) -> Any:
    result = TASKS["segmentation"].measure(dense_toys.model(vision), {**places, **SMALL, **options})
    assert json.loads(json.dumps(result)) == result
    return result


def test_colours_are_found_by_their_names(tmp_path: Path) -> None:
    result = evaluate(stripes(tmp_path))
    assert result["task"] == "segmentation"
    assert result["miou"] == pytest.approx(100)
    assert result["pixel_accuracy"] == pytest.approx(100)
    assert list(result["per_class"]) == ["red", "green", "blue", "white", "black"]
    assert (result["images"], result["pixels"], result["skipped"]) == (3, 3 * 64 * 32, 0)
    # Blue is half of the first picture and a quarter of the two others.
    assert result["best_constant"]["class"] == "blue"
    assert result["best_constant"]["pixel_accuracy"] == pytest.approx(100 / 3)
    assert result["chance"]["pixel_accuracy"] == pytest.approx(100 / 6)
    assert {"model", "data", "versions"} <= result["conditions"].keys()


def test_embeddings_that_have_collapsed_find_nothing(tmp_path: Path) -> None:
    result = evaluate(stripes(tmp_path), Collapsed())
    assert (result["miou"], result["pixel_accuracy"]) == (0, 0)


def test_masks_of_other_sizes_than_their_images(tmp_path: Path) -> None:
    places = stripes(tmp_path)
    for path in places["masks"].iterdir():
        with Image.open(path) as picture:
            larger = picture.resize((192, 96), Image.Resampling.NEAREST)
        larger.save(path)
    result = evaluate(places)
    assert result["pixels"] == 3 * 192 * 96
    assert result["miou"] > 95
    check_intervals(result)


def test_ignored_and_unknown_indices_are_counted_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("lateen").propagate = True
    places = stripes(tmp_path, count=1)
    labels = np.asarray(Image.open(places["masks"] / "0.png")).copy()
    labels[0, :10], labels[1, :4], labels[2, :3] = 255, 77, 9
    Image.fromarray(labels).save(places["masks"] / "0.png")
    with caplog.at_level(logging.WARNING, logger="lateen"):
        result = evaluate(places)
    assert "7 pixels have indices beyond the 6 classes (9, 77)" in caplog.text
    assert result["ignored_pixels"] == 10
    assert result["unknown_indices"] == {"9": 3, "77": 4}
    assert result["pixels"] == 64 * 32 - 17
    assert result["miou"] == pytest.approx(100)
    assert evaluate(places, ignore=0)["per_class"].keys() == {"green", "blue"}


def test_indices_that_are_all_beyond_the_classes_are_an_error(tmp_path: Path) -> None:
    places = stripes(tmp_path, count=1)
    Image.fromarray(np.full((32, 64), 6, np.uint8)).save(places["masks"] / "0.png")
    with pytest.raises(DataError, match="no pixel of any class"):
        evaluate(places)


def test_what_cannot_be_used_is_recorded(tmp_path: Path) -> None:
    places = stripes(tmp_path, count=6)
    (places["masks"] / "0.png").unlink()
    (places["images"] / "1.png").write_bytes(b"no image")
    Image.new("RGB", (64, 32)).save(places["masks"] / "2.png")
    Image.new("L", (32, 64)).save(places["masks"] / "3.png")
    Image.new("RGB", (640, 32)).save(places["images"] / "4.png")
    Image.new("L", (640, 32)).save(places["masks"] / "4.png")
    result = evaluate(places, out=tmp_path / "out")
    reasons = {skip["id"]: skip["reason"] for skip in result["skips"]}
    assert (result["images"], result["skipped"]) == (1, 5)
    assert reasons["0"] == "it has no mask"
    assert "not an image" in reasons["1"]
    assert "colours" in reasons["2"]
    assert "other proportions" in reasons["3"]
    assert "aspect ratio 640:32" in reasons["4"]
    rows = (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(row)["id"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert result["pictures"] == ["overlays/5.png", "per-class.png"]


def test_pictures_are_written_where_they_are_asked_for(tmp_path: Path) -> None:
    result = evaluate(stripes(tmp_path), pictures=2, out=tmp_path / "out")
    assert result["pictures"] == ["overlays/0.png", "overlays/2.png", "per-class.png"]
    for name in result["pictures"]:
        with Image.open(tmp_path / "out" / name) as picture:
            assert picture.width > 500
    assert not (tmp_path / "out" / "skipped.jsonl").exists()
    assert evaluate(stripes(tmp_path))["pictures"] == []


def test_background_is_what_nothing_is_sure_of(tmp_path: Path) -> None:
    names = ["red", "green", "background", "white", "black", "yellow"]
    places = stripes(tmp_path, count=1, names=names)
    # Blue, the third colour, has no name here: its patches are as far from one word as another.
    sure = evaluate(places, background=0.5)
    assert sure["per_class"].keys() == {"red", "green", "background"}
    assert sure["miou"] > 90  # along edges it is sure of neither side
    assert evaluate(places, background=0.01)["per_class"]["background"] == 0
    with pytest.raises(UsageError, match="no class is called background"):
        evaluate(stripes(tmp_path), background=0.5)


def test_a_single_class_beside_background_is_refused(tmp_path: Path) -> None:
    places = stripes(tmp_path, count=1, names=["red", "background"])
    with pytest.raises(UsageError, match="1 class is left"):
        evaluate(places, background=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 64}, "does not fit images whose short side is 32"),
        ({"stride": 17}, "leaves gaps"),
        ({"stride": 0}, "1 or more"),
    ],
)
def test_sizes_that_cannot_be(tmp_path: Path, options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluate(stripes(tmp_path), **options)


def test_an_encoder_without_patches_says_so(tmp_path: Path) -> None:
    import toys

    class NoPatches(toys.ColourEncoder):
        pass

    with pytest.raises(EncoderError, match="no features per patch"):
        evaluate(stripes(tmp_path), NoPatches())


@pytest.mark.real
def test_camvid(real: Path) -> None:
    from lateen.encoders import load_encoder
    from lateen.model import AlignedModel
    from lateen.model.config import AlignedConfig

    vision = load_encoder(str(real / "encoders/vit-tiny"), "image", pooling="cls+mean")
    text = load_encoder("all-MiniLM-L6-v2", "text")
    head = {"name": "identity", "vision": "identity", "dim": 384, "dropout": 0.0}
    config = AlignedConfig(vision=vision.info.as_dict(), text=text.info.as_dict(), head=head)
    model = AlignedModel(config)
    model.set_encoders(vision, text)
    camvid = real / "camvid-mini"
    result = evaluate_segmentation(
        model.eval(), images=camvid / "images", masks=camvid / "masks",
        classes=camvid / "classes.txt", ignore=11, short_side=32, window=32, stride=32,
    )  # fmt: skip
    # The heads were never trained: only the baselines, and that everything is read, can be known.
    assert (result["images"], result["skipped"], result["classes"]) == (40, 0, 11)
    assert result["unknown_indices"] == {}
    assert result["ignored_pixels"] == 216911
    assert result["best_constant"]["class"] == "road"
    assert result["best_constant"]["pixel_accuracy"] == pytest.approx(34.874, abs=0.001)


def test_no_image_that_can_be_used_names_the_first(tmp_path: Path) -> None:
    places = stripes(tmp_path)
    for path in places["images"].iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"not one image of .* \(the first: 0: the file is empty\)"):
        evaluate(places)


def test_a_ready_clip_segments_by_its_patches_in_the_shared_space(
    tmp_path: Path, clip_folder: Path
) -> None:
    """Pixels: 64 × 64, so windows of 32 pixels hold 2 × 2 patches of 16."""
    import lateen

    result = lateen.evaluate(
        clip_folder, "segmentation", **stripes(tmp_path), short_side=64, window=32, stride=16,
        attention="qq", residual=False,
    )  # fmt: skip
    assert (result["images"], result["pixels"], result["skipped"]) == (3, 3 * 64 * 32, 0)
    assert result["window"] == 32
    assert 0 <= result["miou"] <= 100


def test_a_model_that_gives_no_numbers_is_no_zero(tmp_path: Path) -> None:
    class Diverged(dense_toys.PatchColours):
        def encode_patches(self, prepared: Any) -> Any:
            return super().encode_patches(prepared) * float("nan")

    with pytest.raises(LateenError, match=r"have NaN .*diverged"):
        evaluate(stripes(tmp_path), Diverged())
