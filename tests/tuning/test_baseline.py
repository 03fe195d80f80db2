"""The baseline ``projection``: the target encoder with the linear map nearest to the start."""

from __future__ import annotations

from pathlib import Path

import torch
from tuner_toys import prepared, tuned

from lateen.model.clip import open_model
from lateen.tuning.baseline import projection_model


def test_the_map_is_that_of_least_squares_onto_the_start(
    clip_folder: Path, vit_folder: Path, photographs: Path
) -> None:
    this = prepared(clip_folder, vit_folder, photographs)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 16, generator=generator)
    normed = torch.nn.functional.layer_norm(features, (16,))
    wanted = normed @ torch.randn(16, 8, generator=generator) + 3
    model = projection_model(this.start, this.target, features, wanted)
    found = model.project_image(features, normalize=False).detach()
    # Exactly linear but for the ridge, a thousandth of the variance.
    assert float((found - wanted).norm() / (wanted - wanted.mean(0)).norm()) < 0.02
    assert model.text_encoder is this.start.text_encoder
    assert model.logit_scale.item() == this.start.logit_scale.item()
    texts = torch.randn(3, 8, generator=generator)
    torch.testing.assert_close(model.project_text(texts), this.start.project_text(texts))


def test_the_baseline_is_measured_as_a_checkpoint_is(
    clip_folder: Path, vit_folder: Path, photographs: Path, tmp_path: Path
) -> None:
    result = tuned(
        clip_folder, vit_folder, photographs, tmp_path / "out", tune__method="projection",
        eval__classes=str(photographs), eval__linear_probe=False,
    ).results  # fmt: skip
    assert [check["step"] for check in result["checkpoints"]] == [0, 1]
    assert result["stopped"] is None
    assert result["kernel"]["student"] is None
    assert open_model(tmp_path / "out" / "model").vision_encoder.info.dim == 16
