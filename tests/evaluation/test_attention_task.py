from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import dense_toys
import numpy as np
import pytest
import torch
import toys
from PIL import Image

from lateen.data import hash64
from lateen.encoders import Encoder, FusedEncoder, load_encoder
from lateen.errors import DataError, EncoderError, LateenError, UsageError
from lateen.evaluation import TASKS
from lateen.evaluation.tasks.attention import _entropy
from lateen.model import AlignedModel
from lateen.model.config import AlignedConfig
from lateen.model.trained_on import ImageGroup, TrainedOn


def model(vision: Encoder) -> AlignedModel:
    words = toys.WordEncoder()
    head = {"name": "linear", "dim": 4}
    made = AlignedModel(
        AlignedConfig(vision=vision.info.as_dict(), text=words.info.as_dict(), head=head)
    )
    made.set_encoders(vision, words)
    return made.eval()


def look(vision: Encoder, images: Path, out: Path, **options: Any) -> Any:
    result = TASKS["attention"].measure(model(vision), {"images": images, "out": out, **options})
    assert json.loads(json.dumps(result)) == result
    return result


@pytest.fixture
def vit(vit_folder: Path) -> Encoder:
    return load_encoder(str(vit_folder), "image", pooling="cls+mean", precision="float32")


def photos(root: Path, count: int = 5) -> Path:
    for index, colour in enumerate(list(toys.COLOURS)[:count]):
        toys.photo(root / "album" / colour / f"{index}.png", colour, index)
    return root / "album"


def test_a_picture_per_image_that_was_chosen(vit: Encoder, tmp_path: Path) -> None:
    result = look(vit, photos(tmp_path), tmp_path / "out", pictures=3)
    assert result["images"] == 3
    assert result["pictures"] == ["black-4.png.png", "green-1.png.png", "white-3.png.png"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(result["pictures"])
    assert len(result["pictures"]) == 3
    [described] = result["encoders"]
    assert (described["heads"], described["grid"]) == (2, [4, 4])
    assert 0 < described["entropy"] <= 100
    with Image.open(tmp_path / "out" / result["pictures"][0]) as picture:
        assert picture.width > 2 * picture.height


def test_of_the_images_shown_it_is_said_which_were_trained_on(vit: Encoder, tmp_path: Path) -> None:
    album = photos(tmp_path)
    seen = model(vit)
    hashes = [hash64((album / f"{name}.png").read_bytes()) for name in ("green/1", "blue/2")]
    train = ImageGroup.of(["one", "two"], np.array(hashes, np.uint64))
    seen._trained_on = TrainedOn({"train": train})
    options = {"images": album, "out": tmp_path / "out", "pictures": 3}
    result = TASKS["attention"].measure(seen, options)
    # Black 4, green 1 and white 3 are shown.
    assert result["trained_on"] == {"images": 1, "of": 3, "by": "image files", "chosen_on": 0}


def test_of_a_fused_encoder_the_parts_with_attention(vit: Encoder, tmp_path: Path) -> None:
    fused = FusedEncoder([toys.ColourEncoder(), vit, vit])
    result = look(fused, photos(tmp_path, 1), tmp_path / "out")
    assert [each["encoder"] for each in result["encoders"]] == [vit.info.id] * 2
    assert result["images"] == 1
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_images_that_cannot_be_read_are_recorded(vit: Encoder, tmp_path: Path) -> None:
    album = photos(tmp_path, 2)
    (album / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (300, 2)).save(album / "thread.png")
    result = look(vit, album, tmp_path / "out")
    assert (result["images"], result["skipped"]) == (2, 2)
    assert {skip["id"] for skip in result["skips"]} == {"broken.png", "thread.png"}
    for path in (album / "red" / "0.png", album / "green" / "1.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"no image of .* can be shown"):
        look(vit, album, tmp_path / "out")


def test_faults(vit: Encoder, tmp_path: Path) -> None:
    album = photos(tmp_path, 1)
    with pytest.raises(EncoderError, match="3 blocks, none of them -4"):
        look(vit, album, tmp_path / "out", layer=-4)
    with pytest.raises(EncoderError, match="no attention that could be shown"):
        look(dense_toys.PatchColours(), album, tmp_path / "out")
    with pytest.raises(UsageError, match="nothing to show"):
        look(vit, album, tmp_path / "out", pictures=0)
    with pytest.raises(UsageError, match="needs --out"):
        TASKS["attention"].measure(model(vit), {"images": album})


def test_entropy_is_that_of_shares() -> None:
    assert _entropy(torch.full((4, 4), 0.02)) == pytest.approx(100)
    one = torch.zeros(4, 4)
    one[2, 1] = 0.3
    assert _entropy(one) == pytest.approx(0)
    one[0, 0] = 0.3
    assert _entropy(one) == pytest.approx(100 * math.log(2) / math.log(16))


def test_pictures_of_like_names_do_not_replace_each_other(vit: Encoder, tmp_path: Path) -> None:
    for name in ("x/y.png", "x-y.png"):
        toys.photo(tmp_path / "album" / name, "red", 0)
    result = look(vit, tmp_path / "album", tmp_path / "out")
    assert len(set(result["pictures"])) == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(result["pictures"])


def test_a_file_in_the_place_of_the_folder(vit: Encoder, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(LateenError, match=r"the folder .*out cannot be made .*Give another"):
        look(vit, photos(tmp_path), tmp_path / "out")
