from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lateen.align.heads import GLU, AlignmentHeads, FeatureDropout, build_head
from lateen.recipe import HeadSection


def head_section(name: str, **values: object) -> HeadSection:
    return HeadSection.model_validate({"name": name, "dim": 3, "dropout": 0.0, **values})


def normed(head: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], head.norm.weight, head.norm.bias)


def test_linear_head_is_one_matrix_after_layer_norm() -> None:
    head, x = build_head(head_section("linear"), 5), torch.randn(4, 5)
    expected = normed(head, x) @ head.network.weight.T + head.network.bias
    torch.testing.assert_close(head(x), expected)


def test_mlp_head_is_gelu_between_two_matrices_four_times_wider() -> None:
    head, x = build_head(head_section("mlp"), 5), torch.randn(4, 5)
    first, last = head.network.proj[0], head.network.proj[2]
    assert first.weight.shape == (20, 5)
    torch.testing.assert_close(head(x), last(F.gelu(first(normed(head, x)))))


def test_glu_head_gates_with_relu6_eight_times_wider() -> None:
    head, x = build_head(head_section("glu"), 5), torch.randn(4, 5)
    net, h = head.network, normed(head, x)
    assert net.f1.weight.shape == net.f2.weight.shape == (40, 5)
    torch.testing.assert_close(head(x), net.g(F.relu6(net.f1(h)) * net.f2(h)))


@pytest.mark.parametrize(("value", "expected"), [(5e3, 6000.0), (-5e3, 0.0), (3.0, 9.0)])
def test_glu_clamps_both_products(value: float, expected: float) -> None:
    glu = GLU(1, 1, 1)
    for layer in (glu.f1, glu.f2, glu.g):
        nn.init.ones_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert glu(torch.tensor([[value]])).item() == expected


@pytest.mark.parametrize("name", ["linear", "mlp", "glu"])
def test_weights_start_xavier_uniform_and_biases_zero(name: str) -> None:
    network = build_head(head_section(name, dim=40), 30).network
    for layer in (m for m in network.modules() if isinstance(m, nn.Linear)):
        bound = math.sqrt(6 / sum(layer.weight.shape))
        assert 0.9 * bound < layer.weight.abs().max() <= bound
        assert not layer.bias.any()


def test_depth_stacks_blocks_that_keep_the_output_dim() -> None:
    head = build_head(head_section("glu", depth=3, width=2), 5)
    assert [block.f1.weight.shape for block in head.network] == [(10, 5), (6, 3), (6, 3)]
    assert head(torch.randn(4, 5)).shape == (4, 3)


def test_depth_of_a_linear_head_is_refused() -> None:
    with pytest.raises(ValueError, match="stacked linear maps"):
        head_section("linear", depth=2)


def test_dropout_acts_in_training_only_and_keeps_the_mean() -> None:
    dropout, x = FeatureDropout(0.25), torch.ones(300, 401)
    torch.manual_seed(0)
    dropped = dropout(x)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.01)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(dropout.eval()(x), x)


def test_dropout_passes_the_gradient_of_what_it_kept() -> None:
    x = torch.ones(8, 9, requires_grad=True)
    dropped = FeatureDropout(0.5)(x)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped)


def test_dropout_of_nearly_everything_stays_finite() -> None:
    assert FeatureDropout(0.9999)(torch.ones(100, 100)).isfinite().all()


def test_embeddings_are_unit_length_float32_also_under_autocast() -> None:
    heads = AlignmentHeads(head_section("glu"), 5, 4)
    with torch.autocast("cpu", torch.bfloat16):
        image, text = heads.embed_image(torch.randn(6, 5)), heads.embed_text(torch.randn(6, 4))
    for embedding in (image, text):
        assert embedding.dtype == torch.float32
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(6))


def test_scale_is_stored_as_its_log_and_held_to_one_hundred() -> None:
    heads = AlignmentHeads(head_section("linear"), 5, 4, init_scale=7.0, init_bias=-3.0)
    assert heads.logit_scale.item() == pytest.approx(math.log(7))
    assert heads.scale.item() == pytest.approx(7)
    assert heads.logit_bias.item() == -3
    heads.clamp_scale()
    assert heads.scale.item() == pytest.approx(7)
    heads.logit_scale.data.fill_(9.0)
    heads.clamp_scale()
    assert heads.scale.item() == pytest.approx(100)


def test_parameter_names_follow_the_released_checkpoints() -> None:
    names = set(AlignmentHeads(head_section("glu"), 5, 4).state_dict())
    parts = [f"network.{layer}" for layer in ("f1", "f2", "g")] + ["norm"]
    expected = {f"{m}.{part}.{p}" for m in ("vision", "text") for part in parts
                for p in ("weight", "bias")}  # fmt: skip
    assert names == expected | {"logit_scale", "logit_bias"}
