from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lateen.errors import RecipeError, TrainingError
from lateen.experiment.recipe import Recipe
from lateen.training.batches import BatchRows
from lateen.training.config import HeadSection
from lateen.training.heads import GLU, AlignmentHeads, build_head


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
    with pytest.raises(ValueError, match="only mlp and glu can be stacked"):
        head_section("linear", depth=2)


def test_two_identity_heads_are_a_ready_clip_and_no_recipe_to_train() -> None:
    heads = AlignmentHeads(head_section("identity", dim=4), 4, 4)
    image = torch.randn(3, 4)
    torch.testing.assert_close(heads.embed_image(image), F.normalize(image, dim=1))
    with pytest.raises(RecipeError, match="nothing to train"):
        Recipe.build({"head": {"name": "identity"}})


def test_sharelock_leaves_the_image_features_as_they_are() -> None:
    heads = AlignmentHeads(head_section("sharelock", dim=None, width=2), 6, 4)
    assert heads.settings.dim == 6
    assert not list(heads.vision.parameters())
    image = torch.randn(5, 6).half()
    torch.testing.assert_close(heads.embed_image(image), F.normalize(image.float(), dim=1))
    shapes = [layer.weight.shape for layer in heads.text.network.layers]
    assert shapes == [(8, 4), (8, 8), (8, 8)]
    assert heads.eval().embed_text(torch.randn(5, 4)).shape == (5, 6)


def test_sharelock_is_linear_batch_norm_relu_three_times_then_linear() -> None:
    head = build_head(head_section("sharelock", width=2), 4).eval()
    for norm in head.network.norms:
        norm.running_mean.uniform_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(5, 4)
    h = normed(head, x)
    for layer, norm in zip(head.network.layers, head.network.norms, strict=True):
        h = F.relu(norm(F.linear(h, layer.weight, layer.bias)))
    torch.testing.assert_close(head(x), head.network.out(h))


def test_lit_keeps_the_image_side_and_trains_the_text_side() -> None:
    heads = AlignmentHeads(head_section("linear", vision="identity", dim=None), 6, 4)
    assert heads.settings.dim == 6
    assert [name for name, _ in heads.named_parameters() if name.startswith("vision")] == []


def test_each_side_has_a_dropout_of_its_own() -> None:
    heads = AlignmentHeads(head_section("linear", dropout=0.75, text_dropout=0.25), 400, 400)
    ones = torch.ones(300, 400)
    shares = [(head.dropout(ones) == 0).float().mean() for head in (heads.vision, heads.text)]
    assert shares == pytest.approx([0.75, 0.25], abs=0.01)
    assert HeadSection(dropout=0.1).text_dropout == 0.1
    assert HeadSection(text_dropout=0.1).dropout == HeadSection().dropout


def test_an_identity_head_says_which_length_it_keeps() -> None:
    with pytest.raises(TrainingError, match="image features of 6 values into embeddings of 3"):
        AlignmentHeads(head_section("linear", vision="identity", dim=3), 6, 4)


@pytest.mark.parametrize("name", ["linear", "mlp", "glu", "sharelock"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_training_gives_the_values_and_gradients_of_the_plain_layers(
    name: str, dropout: float
) -> None:
    # Features that require a gradient take plain layers, frozen ones the closed form.
    head = build_head(head_section(name, dropout=dropout), 5).double()
    with torch.no_grad():
        head.norm.weight.uniform_(-2, 2)
        head.norm.bias.uniform_(-2, 2)
    x, rows = torch.randn(9, 5).double(), BatchRows(0, 3, 0, 9)
    upstream = torch.randn(9, 3).double()
    frozen = head(x, rows)
    plain = head(x.clone().requires_grad_(), rows)
    torch.testing.assert_close(frozen, plain)
    parameters = list(head.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(frozen, parameters, upstream),
        torch.autograd.grad(plain, parameters, upstream),
    )


def test_frozen_features_pass_gradcheck_in_every_parameter() -> None:
    head = build_head(head_section("glu", width=2), 4).double()
    names, parameters = zip(*head.named_parameters(), strict=True)
    x = torch.randn(3, 4).double()

    def run(*values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(head, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, tuple(p.detach().requires_grad_() for p in parameters))


def test_a_norm_weight_of_zero_is_no_trouble() -> None:
    head = build_head(head_section("linear"), 5)
    nn.init.zeros_(head.norm.weight)
    head(torch.randn(4, 5)).sum().backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())
    assert head.norm.weight.grad.any()


def test_gradients_reach_features_that_ask_for_them() -> None:
    x = torch.randn(4, 5, requires_grad=True)
    build_head(head_section("glu"), 5)(x).sum().backward()
    assert x.grad.any()


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
    heads.after_step()
    assert heads.scale.item() == pytest.approx(7)
    heads.logit_scale.data.fill_(9.0)
    heads.after_step()
    assert heads.scale.item() == pytest.approx(100)


def test_parameter_names_follow_the_released_checkpoints() -> None:
    names = set(AlignmentHeads(head_section("glu"), 5, 4).state_dict())
    parts = [f"network.{layer}" for layer in ("f1", "f2", "g")] + ["norm"]
    expected = {f"{m}.{part}.{p}" for m in ("vision", "text") for part in parts
                for p in ("weight", "bias")}  # fmt: skip
    assert names == expected | {"logit_scale", "logit_bias"}


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's
def test_compiled_networks_compute_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    heads = AlignmentHeads(head_section("glu", dropout=0.5), 5, 4)
    x, rows = torch.randn(6, 5), BatchRows(0, 0, 0, 6)
    plain = heads.embed_image(x, rows)
    # Tracing without a code generator, which would take a minute and a C++ compiler.
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda f, **options: compile_(f, **{**options, "backend": "aot_eager"})
    )
    heads.compile_networks()
    compiled = heads.embed_image(x, rows)
    torch.testing.assert_close(compiled, plain)
    parameters = list(heads.vision.parameters())
    upstream = torch.randn(6, 3)
    torch.testing.assert_close(
        torch.autograd.grad(compiled, parameters, upstream),
        torch.autograd.grad(plain, parameters, upstream),
        atol=1e-4, rtol=1e-4,  # an embedding near 0 before its normalisation magnifies rounding
    )  # fmt: skip
    assert set(heads.state_dict()) == set(AlignmentHeads(head_section("glu"), 5, 4).state_dict())
