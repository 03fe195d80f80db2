"""Tasks on real photographs with real encoders: what a right implementation cannot miss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

import lateen
from lateen.encoders import Encoder, load_encoder
from lateen.model import AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads

pytestmark = pytest.mark.real

Encoders = tuple[Encoder, Encoder]


@pytest.fixture(scope="module")
def encoders(real: Path) -> Encoders:
    """Vision and text."""
    vision = load_encoder(str(real / "encoders/vit-tiny"), "image", pooling="cls+mean")
    return vision, load_encoder("all-MiniLM-L6-v2", "text")


def untrained(encoders: Encoders) -> AlignedModel:
    """Random heads: what it sees is the vision encoder's alone."""
    torch.manual_seed(0)
    vision, text = (encoder.info for encoder in encoders)
    head = HeadSection(name="linear", dim=128)
    heads = AlignmentHeads(head, vision.dim, text.dim)
    model = AlignedModel.build(heads, vision.as_dict(), text.as_dict(), head.model_dump())
    model.set_encoders(*encoders)
    return model.eval()


def photographs(real: Path, root: Path, which: slice) -> Path:
    """Some of every class of imagenette, as class folders."""
    for folder in sorted(path for path in (real / "imagenette-mini").iterdir() if path.is_dir()):
        (root / folder.name).mkdir(parents=True)
        for image in sorted(folder.iterdir())[which]:
            (root / folder.name / image.name).symlink_to(image)
    return root


def captioned(folder: Path) -> Path:
    """The photographs with the names of their classes as captions."""
    rows = [
        f"{path.relative_to(folder)},a photo of a {path.parent.name}."
        for path in sorted(folder.glob("*/*.jpg"))
    ]
    (folder / "captions.csv").write_text("\n".join(["image,caption", *rows]) + "\n")
    return folder / "captions.csv"


def test_a_few_captioned_photographs_teach_the_classes_of_others(
    real: Path, encoders: Encoders, tmp_path: Path
) -> None:
    captions = captioned(photographs(real, tmp_path / "learned", slice(0, 8)))
    stores = [
        lateen.encode(captions, encoder, tmp_path / encoder.info.modality) for encoder in encoders
    ]
    pairs = lateen.pair(*stores)
    model = lateen.train(pairs, validation=pairs, head="linear", dim=64, epochs=40, batch=40)
    model.set_encoders(*encoders)
    judged = photographs(real, tmp_path / "judged", slice(8, 16))
    result = lateen.evaluate(model, "classification", images=judged)
    assert (result["images"], result["classes"], result["skipped"]) == (80, 10, 0)
    assert result["chance"]["top1"] == 10
    assert result["top1"] > 40
    assert result["top1"] == pytest.approx(result["mean_per_class"])  # as many of every class
    assert sum(map(sum, result["confusion"]["counts"])) == 80


def test_neighbours_and_a_linear_probe_need_no_trained_head(
    real: Path, encoders: Encoders, tmp_path: Path
) -> None:
    """README of the real data: 84 % by ten neighbours, of ten times as many photographs."""
    images = photographs(real, tmp_path / "some", slice(0, 12))
    model = untrained(encoders)
    knn = lateen.evaluate(model, "knn", images=images, k=(5, 10))
    probe = lateen.evaluate(model, "linear-probe", images=images)
    assert (knn["images"], knn["chance"], probe["folds"]) == (120, 10, 5)
    for kind in ("encoder", "embedding"):  # random directions keep most of what is near
        assert knn[kind]["10"] > 50
        assert probe[kind]["accuracy"] > 60
    assert knn["encoder"]["10"] > 65


def street_scenes(real: Path, root: Path, names: Sequence[str]) -> dict[str, Path]:
    for kind, ending in (("images", "jpg"), ("masks", "png")):
        (root / kind).mkdir(parents=True)
        for name in names:
            (root / kind / f"{name}.{ending}").symlink_to(
                real / "camvid-mini" / kind / f"{name}.{ending}"
            )
    return {
        "images": root / "images", "masks": root / "masks",
        "classes": real / "camvid-mini" / "classes.txt",
    }  # fmt: skip


def test_street_scenes_by_random_heads_are_near_chance(
    real: Path, encoders: Encoders, tmp_path: Path
) -> None:
    names = sorted(path.stem for path in (real / "camvid-mini" / "images").iterdir())[:3]
    places = street_scenes(real, tmp_path, names)
    (places["images"] / "alone.jpg").symlink_to(places["images"] / f"{names[0]}.jpg")
    result = lateen.evaluate(
        untrained(encoders), "segmentation", **places, ignore=11, short_side=224, window=224,
        stride=112,
    )  # fmt: skip
    assert (result["images"], result["skipped"], result["classes"]) == (3, 1, 11)
    assert result["pixels"] + result["ignored_pixels"] == 3 * 480 * 360
    assert result["unknown_indices"] == {}
    assert result["miou"] < result["chance"]["miou"] + 10
    assert sum(result["per_class"].values()) / len(result["per_class"]) == pytest.approx(
        result["miou"]
    )
