"""The released SAIL code's own numbers, where a file with them is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lateen.align.heads import AlignmentHeads
from lateen.align.losses import infonce_loss, sigmoid_loss
from lateen.recipe import HeadSection

Golden = tuple[AlignmentHeads, dict[str, Tensor]]
_NAMES = {"layer_norm": "norm", "mapping_network": "network"}


def _our_name(theirs: str) -> str:
    for modality in ("vision", "text"):
        for part, ours in _NAMES.items():
            theirs = theirs.replace(f"{modality}_{part}.", f"{modality}.{ours}.")
    return theirs


@pytest.fixture(scope="module")
def golden() -> Golden:
    root = Path(__file__).parents[3] / "shared" / "real"
    folder = Path(os.environ.get("LATEEN_REAL", root)).parent / "golden"
    if not folder.is_dir():
        pytest.skip("no golden values beside the real data")
    numpy_scalars = [np._core.multiarray.scalar, np.dtype, np.dtypes.Float64DType]
    with torch.serialization.safe_globals(numpy_scalars):
        state = torch.load(folder / "sail_glu.pt", weights_only=True)["state_dict"]
    with np.load(folder / "sail_glu.npz") as file:
        values = {name: torch.from_numpy(file[name]) for name in file.files}
    heads = AlignmentHeads(HeadSection(dropout=0.0, name="glu", dim=16), 32, 24)
    shapes = heads.state_dict()
    heads.load_state_dict({
        _our_name(name): tensor.reshape(shapes[_our_name(name)].shape)
        for name, tensor in state.items()
    })  # fmt: skip
    return heads, values


@pytest.mark.real
def test_glu_heads_give_the_released_outputs(golden: Golden) -> None:
    heads, values = golden
    cases = [("vision", "v", "image"), ("text", "t", "text"), ("text", "e", "extra")]
    for head, features, output in cases:
        torch.testing.assert_close(getattr(heads, head)(values[features]), values[output])
    assert heads.scale.item() == pytest.approx(values["scale"].item())


@pytest.mark.real
@pytest.mark.parametrize("chunk", [5, 1024])
def test_losses_and_gradient_norms_are_the_released_ones(golden: Golden, chunk: int) -> None:
    heads, values = golden
    image = heads.embed_image(values["v"])
    texts = [heads.embed_text(values["t"]), heads.embed_text(values["e"])]
    scale, bias = heads.scale, heads.logit_bias
    single = sigmoid_loss(image, texts[0], scale, bias, chunk_size=chunk)
    assert single.item() == pytest.approx(values["loss_single"].item(), rel=1e-5)
    softmax = infonce_loss(image, texts[0], scale, chunk_size=chunk)
    assert softmax.item() == pytest.approx(values["infonce"].item(), rel=1e-5)
    multi = sigmoid_loss(image, texts, scale, bias, positives="mean", chunk_size=chunk)
    assert multi.item() == pytest.approx(values["loss_multi"].item(), rel=1e-5)
    heads.zero_grad()
    multi.backward()
    norms = {_our_name(k.removeprefix("gn_")): v.item() for k, v in values.items() if "gn_" in k}
    assert set(norms) == {name for name, _ in heads.named_parameters()}
    for name, parameter in heads.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.norm().item() == pytest.approx(norms[name], rel=1e-5), name
