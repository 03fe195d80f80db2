"""SAIL's checkpoint format: the released numbers, and the way there and back."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sail_files import DIM, State, released, side, write
from torch import Tensor
from toys import ColourEncoder, WordEncoder

from lateen.errors import EncoderError, ModelError
from lateen.model import AlignedModel
from lateen.training.config import HeadSection
from lateen.training.heads import AlignmentHeads
from lateen.training.losses import infonce_loss, sigmoid_loss


def plain(state: State, name: str, kind: str, x: Tensor) -> Tensor:
    """One head, as METHODS §1.2 writes it, with both of the released clamps."""
    norm, network = f"{name}_layer_norm", f"{name}_mapping_network"
    h = F.layer_norm(x, x.shape[1:], state[f"{norm}.weight"], state[f"{norm}.bias"])

    def layer(name: str, h: Tensor) -> Tensor:
        return h @ state[f"{network}{name}.weight"].T + state[f"{network}{name}.bias"]

    if kind == "linear":
        return layer("", h)
    if kind == "mlp":
        return layer(".proj.2", F.gelu(layer(".proj.0", h)))
    gate = layer(".f1", h).clamp(-1000, 1000).clamp(0, 6)
    return layer(".g", gate * layer(".f2", h).clamp(-1000, 1000))


def tensors(path: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return found


# -- the released numbers -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> Path:
    folder = Path(os.environ.get("LATEEN_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
    if not (folder / "sail_glu.pt").is_file():
        pytest.skip("no golden values: set LATEEN_GOLDEN to their folder")
    return folder


def numbers(golden: Path) -> dict[str, Tensor]:
    with np.load(golden / "sail_glu.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.real
def test_outputs_are_the_released_ones(golden: Path) -> None:
    model, values = AlignedModel.from_sail_checkpoint(golden / "sail_glu.pt"), numbers(golden)
    texts = [(model.project_text, "t", "text"), (model.project_text, "e", "extra")]
    for project, features, output in [(model.project_image, "v", "image"), *texts]:
        raw = project(values[features], normalize=False)
        torch.testing.assert_close(raw, values[output], rtol=1e-5, atol=1e-5)
        unit = values[output] / values[output].norm(dim=1, keepdim=True)
        torch.testing.assert_close(project(values[features]), unit, rtol=1e-5, atol=1e-5)
    assert model.logit_scale.exp().item() == pytest.approx(values["scale"].item(), rel=1e-5)
    assert model.logit_bias.item() == pytest.approx(values["bias"].item(), rel=1e-5)


@pytest.mark.real
@pytest.mark.parametrize("chunk", [5, 1024])
def test_losses_and_gradient_norms_are_the_released_ones(golden: Path, chunk: int) -> None:
    model, values = AlignedModel.from_sail_checkpoint(golden / "sail_glu.pt"), numbers(golden)
    image = model.project_image(values["v"])
    texts = [model.project_text(values["t"]), model.project_text(values["e"])]
    scale, bias = model.heads.scale, model.logit_bias
    single = sigmoid_loss(image, texts[0], scale, bias, chunk_size=chunk)
    assert single.item() == pytest.approx(values["loss_single"].item(), rel=1e-5)
    softmax = infonce_loss(image, texts[0], scale, chunk_size=chunk)
    assert softmax.item() == pytest.approx(values["infonce"].item(), rel=1e-5)
    multi = sigmoid_loss(image, texts, scale, bias, positives="mean", chunk_size=chunk)
    assert multi.item() == pytest.approx(values["loss_multi"].item(), rel=1e-5)
    multi.backward()
    theirs = {"norm": "layer_norm", "network": "mapping_network"}
    for name, parameter in model.heads.named_parameters():
        head, *rest = name.split(".")
        key = f"{head}_{theirs[rest[0]]}.{'.'.join(rest[1:])}" if rest else name
        assert parameter.grad is not None
        expected = values[f"gn_{key}"].item()
        assert parameter.grad.norm().item() == pytest.approx(expected, rel=1e-5), name


@pytest.mark.real
def test_the_released_file_comes_back_with_the_same_tensors(golden: Path, tmp_path: Path) -> None:
    AlignedModel.from_sail_checkpoint(golden / "sail_glu.pt").save_sail_checkpoint(
        tmp_path / "a.pt"
    )
    before, after = tensors(golden / "sail_glu.pt"), tensors(tmp_path / "a.pt")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(after[key], tensor), key
        assert after[key].shape == tensor.shape, key
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    assert (content["name"], content["epoch"], content["optimizer"]) == ("golden", 64, {})


# -- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    ("image", "text", "width"),
    [("glu", "glu", 2), ("mlp", "mlp", 2), ("linear", "linear", None), ("linear", "glu", 2)],
)
def test_every_kind_of_head_is_inferred(
    image: str, text: str, width: int | None, prefix: str, tmp_path: Path
) -> None:
    state = released(image, text)
    path = write(tmp_path / "a.pt", {prefix + key: value for key, value in state.items()})
    model = AlignedModel.from_sail_checkpoint(path)
    head = model.config.head_settings
    assert (head.image_name, head.name, head.width, head.dim) == (image, text, width, DIM)
    assert head.dropout == 0
    assert not model.training
    x = torch.randn(5, 6)
    raw = model.project_image(x, normalize=False)
    torch.testing.assert_close(raw, plain(state, "vision", image, x))
    torch.testing.assert_close(
        model.project_text(x), F.normalize(plain(state, "text", text, x), dim=1)
    )
    assert model.logit_scale.item() == 3
    assert model.logit_bias.item() == -9


def test_the_gate_is_the_released_one_also_where_it_clamps(tmp_path: Path) -> None:
    state = {key: value * 3000 for key, value in side("text", "glu", 6, 2).items()}
    path = write(tmp_path / "a.pt", {**released(), **state})
    x = torch.randn(5, 6)
    raw = AlignedModel.from_sail_checkpoint(path).project_text(x, normalize=False)
    torch.testing.assert_close(raw, plain(state, "text", "glu", x))


@pytest.mark.parametrize("number", [np.float64(1e-5), np.float32(1), np.int64(3), np.bool_(True)])
def test_numpy_numbers_of_the_optimiser_are_no_obstacle(number: object, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", released(), optimizer={"lr": number}, epoch=np.int64(4))
    model = AlignedModel.from_sail_checkpoint(path)
    assert model.config.training == {"checkpoint": "run", "epoch": 4}
    assert np.dtype not in torch.serialization.get_safe_globals()


def test_numpy_numbers_are_known_by_the_module_name_of_numpy_1(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", released(), optimizer={"lr": np.float64(1e-5)})
    old = tmp_path / "old.pt"
    torch.save(torch.load(path, weights_only=False), old, _use_new_zipfile_serialization=False)
    renamed = old.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert b"cnumpy.core.multiarray\n" in renamed
    old.write_bytes(renamed)
    assert AlignedModel.from_sail_checkpoint(old).config.image_dim == 6


def test_the_programs_own_safe_globals_stay(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", released())
    with torch.serialization.safe_globals([np.dtype]):
        AlignedModel.from_sail_checkpoint(path)
        assert np.dtype in torch.serialization.get_safe_globals()


def test_without_a_bias_it_is_zero(tmp_path: Path) -> None:
    state = released()
    del state["logit_bias"]
    assert AlignedModel.from_sail_checkpoint(write(tmp_path / "a.pt", state)).logit_bias.item() == 0


def test_half_precision_becomes_single(tmp_path: Path) -> None:
    state = {key: value.half() for key, value in released().items()}
    model = AlignedModel.from_sail_checkpoint(write(tmp_path / "a.pt", state))
    assert model.project_image(torch.ones(1, 6)).dtype == torch.float32


# -- encoders -------------------------------------------------------------------------------------


def test_with_both_encoders_it_is_a_whole_model(tmp_path: Path) -> None:
    model = AlignedModel.from_sail_checkpoint(
        write(tmp_path / "a.pt", released()),
        vision_encoder=ColourEncoder(), text_encoder="toys:word_encoder",
    )  # fmt: skip
    image, encoder = Image.new("RGB", (8, 8), "red"), WordEncoder()
    assert model.encode_image(image).shape == (1, DIM)
    torch.testing.assert_close(
        model.encode_text("red"), model.project_text(encoder.encode(encoder.prepare(["red"])))
    )
    model.save_pretrained(tmp_path / "m")
    again = AlignedModel.from_pretrained(tmp_path / "m", vision_encoder="toys:colour_encoder")
    torch.testing.assert_close(again.encode_text("red"), model.encode_text("red"))
    torch.testing.assert_close(again.encode_image(image), model.encode_image(image))


@pytest.mark.parametrize(("name", "method"), [("vision", "encode_image"), ("text", "encode_text")])
def test_without_an_encoder_only_features_are_taken(name: str, method: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", released())
    model = AlignedModel.from_sail_checkpoint(path)
    model.save_pretrained(tmp_path / "m")
    again, x = AlignedModel.from_pretrained(tmp_path / "m"), torch.randn(4, 6)
    assert torch.equal(again.project_image(x), model.project_image(x))
    assert torch.equal(again.project_text(x), model.project_text(x))
    item = Image.new("RGB", (8, 8)) if name == "vision" else "red"
    with pytest.raises(ModelError, match=rf"its {name} encoder .*set_encoders\({name}=…\)"):
        getattr(again, method)(item)
    given: Any = ColourEncoder() if name == "vision" else WordEncoder()
    again.set_encoders(**{name: given})
    assert getattr(again, method)(item).shape == (1, DIM)


def test_encoders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pt", released())
    state = {**released(), **side("vision", "glu", 5, 2)}
    with pytest.raises(ModelError, match=r"colour_encoder gives features of 6 .* head takes 5"):
        AlignedModel.from_sail_checkpoint(
            write(tmp_path / "b.pt", state), vision_encoder=ColourEncoder()
        )
    with pytest.raises(ModelError, match="modality is text, it was image"):
        AlignedModel.from_sail_checkpoint(path, vision_encoder=WordEncoder())
    with pytest.raises(EncoderError, match="encodes images, not texts"):
        AlignedModel.from_sail_checkpoint(path, text_encoder="toys:colour_encoder")


# -- writing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["glu", "mlp", "linear"])
def test_a_model_comes_back_bit_by_bit(kind: Any, tmp_path: Path) -> None:
    head = HeadSection(name=kind, dim=4)
    info = {"id": "x", "dim": 6}
    model = AlignedModel.build(AlignmentHeads(head, 6, 6), info, info, head.model_dump())
    model.save_sail_checkpoint(tmp_path / "my-run.pt")
    again = AlignedModel.from_sail_checkpoint(tmp_path / "my-run.pt")
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    assert again.config.training == {"checkpoint": "my-run", "epoch": 0}
    assert tensors(tmp_path / "my-run.pt")["logit_scale"].shape == (1,)
    assert [file.name for file in tmp_path.iterdir()] == ["my-run.pt"]


@pytest.mark.parametrize(
    ("settings", "of"),
    [({"name": "glu", "depth": 2}, "vision"), ({"name": "sharelock"}, "vision"),
     ({"name": "identity", "vision": "mlp"}, "text")],
)  # fmt: skip
def test_heads_that_the_format_cannot_hold_are_not_written(
    settings: dict[str, Any], of: str, tmp_path: Path
) -> None:
    head = HeadSection(dim=6, **settings)
    info = {"id": "x", "dim": 6}
    model = AlignedModel.build(AlignmentHeads(head, 6, 6), info, info, head.model_dump())
    with pytest.raises(ModelError, match=f"cannot hold this model's {of} head.*glu, mlp, linear"):
        model.save_sail_checkpoint(tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())
