"""A tiny CLIP is tuned to another encoder from end to end: trained, measured, killed, saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tune_toys import TINY

from lateen.hardware import use_hardware
from lateen.model.clip import open_model
from lateen.tuning import tune
from lateen.tuning.tuner import Tuned


def tuned(model: Path, target: Path, images: Path, out: Path, **settings: Any) -> Tuned:
    values = {
        **TINY, "precision": "float32",
        **{name.replace("__", "."): value for name, value in settings.items()},
    }  # fmt: skip
    return tune(model, str(target), images, out=out, settings=values)


@pytest.mark.parametrize("kind", ["clip_folder", "siglip_folder"])
def test_a_model_comes_out_in_the_form_it_came_in(
    kind: str, vit_folder: Path, photographs: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(kind)
    result = tuned(source, vit_folder, photographs, tmp_path / "out",
                   eval__classes=str(photographs), eval__linear_probe=False)  # fmt: skip
    results = result.results
    assert results["steps"] == results["kept_step"] == 12
    assert [check["step"] for check in results["checkpoints"]] == [0, 6, 12]
    assert results["kernel"]["end"] < results["kernel"]["start"]
    assert {"zero_shot", "knn_encoder", "knn_embedding"} <= results["after"].keys()
    assert (tmp_path / "out" / "report.html").is_file()
    with use_hardware(precision="float32"):
        check_model(source, tmp_path / "out" / "model", photographs, results["images"])


def check_model(source: Path, out: Path, photographs: Path, images: int) -> None:
    """The text side is the same, the image side another; transformers alone reads it."""
    before, after = open_model(source), open_model(out)
    picture = [next(photographs.rglob("*.png"))]
    assert not torch.allclose(before.encode_image(picture), after.encode_image(picture), atol=1e-4)
    texts = ["a red thing", "a blue thing"]
    torch.testing.assert_close(before.encode_text(texts), after.encode_text(texts), rtol=0, atol=0)
    record = after.trained_on
    assert record is not None
    assert record.groups["train"].count == images
    from transformers import AutoModel

    alone = AutoModel.from_pretrained(out)
    ours = after.vision_encoder
    pixels = torch.stack(list(ours.prepare([Image.open(picture[0]).convert("RGB")])))
    with torch.no_grad():
        output = alone.get_image_features(pixel_values=pixels)
    expected = getattr(output, "pooler_output", output)
    torch.testing.assert_close(ours.encode(list(pixels)), expected, rtol=1e-4, atol=1e-5)
