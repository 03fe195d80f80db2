"""open_clip's layout: names and shapes by formula, values by a plain forward pass, and by open_clip
itself where it can be imported."""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import call, saved_model
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, CLIPConfig, CLIPModel

from lateen.encoders import load_encoder
from lateen.errors import ModelError
from lateen.files import read_json
from lateen.integrations import open_clip
from lateen.integrations.open_clip import (
    export,
    model_settings,
    open_clip_state,
    preprocess_settings,
)
from lateen.model import AlignedModel, clip_model, open_model
from lateen.model.clip_saving import save_tuned_clip

Capture = pytest.CaptureFixture[str]
Make = Callable[..., Path]
PROCESSING: dict[str, Any] = {
    "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "resample": 3,
    "do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True,
    "rescale_factor": 1 / 255, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6],
}  # fmt: skip
# What each model has other than the one of the fixtures: heads of 12 and 8, activation quick_gelu.
FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "own end": {"vision": {}, "text": {}},
    "end as in old configs": {"vision": {}, "text": {"eos_token_id": 2}},
    "end is the highest id": {"vision": {}, "text": {"eos_token_id": 59}},
    "gelu": {"vision": {"hidden_act": "gelu"}, "text": {"hidden_act": "gelu"}},
    "open_clip's defaults": {
        "vision": {"hidden_size": 128, "intermediate_size": 512},
        "text": {"hidden_size": 32, "intermediate_size": 128},
    },
    "other sizes": {
        "vision": {"hidden_size": 30, "intermediate_size": 43, "num_attention_heads": 5,
                   "num_hidden_layers": 3, "patch_size": 8, "layer_norm_eps": 1e-3},
        "text": {"num_attention_heads": 4, "layer_norm_eps": 1e-2, "num_hidden_layers": 1},
    },
}  # fmt: skip


@pytest.fixture
def make(clip_folder: Path, tmp_path: Path) -> Make:
    """A tiny CLIP with the tokenizer and image processor of the fixtures'; no weight is 0 or 1."""

    def build(
        vision: dict[str, Any], text: dict[str, Any], dtype: torch.dtype = torch.float32
    ) -> Path:
        folder = tmp_path / "plain"
        shutil.copytree(clip_folder, folder)
        config = CLIPConfig.from_pretrained(clip_folder).to_dict()
        config["vision_config"].update(vision)
        config["text_config"].update(text)
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig.from_dict(config))
        with torch.no_grad():
            for tensor in model.parameters():
                tensor += 0.1 * torch.randn_like(tensor)
        model.to(dtype).save_pretrained(folder)
        return folder

    return build


def inputs() -> tuple[Tensor, Tensor]:
    """Pixels, and token ids [n, 16]: begin 2, end 3, what an old config takes for the end 59."""
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randn(3, 3, 32, 32, generator=generator)
    ids = torch.zeros(3, 16, dtype=torch.long)
    for row, length in enumerate((4, 9, 14)):
        ids[row, 1:length] = torch.randint(5, 55, (length - 1,), generator=generator)
        ids[row, 0], ids[row, length], ids[row, length + 1] = 2, 59, 3
    return pixels, ids


def transformers_features(folder: Path) -> list[Tensor]:
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    pixels, ids = inputs()
    with torch.no_grad():
        found = model.get_image_features(pixels), model.get_text_features(ids)
    return [each.pooler_output for each in found]


class Plain:
    """A forward pass of OpenAI's CLIP, as written down for it: from a state dict and a config."""

    def __init__(self, folder: Path) -> None:
        self.state = load_file(folder / "open_clip_model.safetensors")
        self.config = read_json(folder / "open_clip_config.json")["model_cfg"]

    def norm(self, x: Tensor, name: str, config: dict[str, Any]) -> Tensor:
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        eps = config.get("norm_kwargs", {"eps": 1e-5})["eps"]
        return functional.layer_norm(x, x.shape[-1:], weight, bias, eps)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def blocks(self, x: Tensor, at: str, heads: int, mask: Tensor) -> Tensor:
        config = self.config["vision_cfg" if at else "text_cfg"]
        n, length, width = x.shape
        for block in (f"{at}transformer.resblocks.{i}" for i in range(config["layers"])):
            weight, bias = (self.state[f"{block}.attn.in_proj_{k}"] for k in ("weight", "bias"))
            three = (self.norm(x, f"{block}.ln_1", config) @ weight.T + bias).chunk(3, dim=-1)
            q, k, v = (each.view(n, length, heads, -1).transpose(1, 2) for each in three)
            scores = q @ k.transpose(2, 3) / (width // heads) ** 0.5 + mask
            mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(n, length, width)
            x = x + self.linear(mixed, f"{block}.attn.out_proj")
            y = self.linear(self.norm(x, f"{block}.ln_2", config), f"{block}.mlp.c_fc")
            quick = self.config["quick_gelu"]
            y = y * torch.sigmoid(1.702 * y) if quick else functional.gelu(y)
            x = x + self.linear(y, f"{block}.mlp.c_proj")
        return x

    def hidden(self, pixels: Tensor) -> Tensor:
        """Tokens of the last block, CLS first."""
        config = self.config["vision_cfg"]
        kernel, stride = self.state["visual.conv1.weight"], config["patch_size"]
        x = functional.conv2d(pixels, kernel, stride=stride).flatten(2).transpose(1, 2)
        cls = self.state["visual.class_embedding"].expand(len(x), 1, -1)
        x = torch.cat([cls, x], 1) + self.state["visual.positional_embedding"]
        heads = config["width"] // config.get("head_width", 64)
        x = self.norm(x, "visual.ln_pre", config)
        return self.blocks(x, "visual.", heads, torch.zeros(()))

    def image(self, pixels: Tensor) -> Tensor:
        cls = self.hidden(pixels)[:, 0]
        cls = self.norm(cls, "visual.ln_post", self.config["vision_cfg"])
        return cls @ self.state["visual.proj"]

    def text(self, ids: Tensor) -> Tensor:
        config = self.config["text_cfg"]
        x = self.state["token_embedding.weight"][ids] + self.state["positional_embedding"]
        later = torch.full((ids.shape[1], ids.shape[1]), -torch.inf).triu(1)
        x = self.norm(self.blocks(x, "", config["heads"], later), "ln_final", config)
        ends = ids == config["eos_id"] if config.get("pool_type") == "eos" else ids
        return x[torch.arange(len(ids)), ends.int().argmax(-1)] @ self.state["text_projection"]


def expected_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """open_clip's names and shapes of a ViT, from its ``model_cfg``."""
    vision, text, dim = config["vision_cfg"], config["text_cfg"], config["embed_dim"]
    edge, (w, t) = vision["patch_size"], (vision["width"], text["width"])
    shapes = {
        "visual.class_embedding": [w], "visual.conv1.weight": [w, 3, edge, edge],
        "visual.positional_embedding": [(vision["image_size"] // edge) ** 2 + 1, w],
        "visual.proj": [w, dim], "text_projection": [t, dim], "logit_scale": [],
        "token_embedding.weight": [text["vocab_size"], t],
        "positional_embedding": [text["context_length"], t],
    }  # fmt: skip
    norms = [("visual.ln_pre", w), ("visual.ln_post", w), ("ln_final", t)]
    for at, each in (("visual.", vision), ("", text)):
        width, hidden = each["width"], int(each["width"] * each.get("mlp_ratio", 4))
        for block in (f"{at}transformer.resblocks.{i}" for i in range(each["layers"])):
            norms += [(f"{block}.ln_1", width), (f"{block}.ln_2", width)]
            shapes[f"{block}.attn.in_proj_weight"] = [3 * width, width]
            shapes[f"{block}.attn.in_proj_bias"] = [3 * width]
            for name, rows, columns in (
                ("attn.out_proj", width, width), ("mlp.c_fc", hidden, width),
                ("mlp.c_proj", width, hidden),
            ):  # fmt: skip
                shapes[f"{block}.{name}.weight"] = [rows, columns]
                shapes[f"{block}.{name}.bias"] = [rows]
    for name, width in norms:
        shapes |= {f"{name}.weight": [width], f"{name}.bias": [width]}
    return shapes


@pytest.mark.parametrize("form", FORMS)
def test_names_shapes_and_values_are_those_of_the_architecture(
    make: Make, form: str, tmp_path: Path
) -> None:
    folder, out = make(**FORMS[form]), tmp_path / "out"
    export(clip_model(str(folder)), out)
    plain = Plain(out)
    found = {name: list(tensor.shape) for name, tensor in plain.state.items()}
    assert found == expected_shapes(plain.config)
    pixels, ids = inputs()
    for ours, theirs in zip(
        (plain.image(pixels), plain.text(ids)), transformers_features(folder), strict=True
    ):
        assert theirs.std() > 0.1
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_tokens_that_openflamingo_takes_are_the_towers_last_patches(
    make: Make, tmp_path: Path
) -> None:
    folder = make({}, {})
    export(clip_model(str(folder)), tmp_path / "out")
    pixels, _ = inputs()
    tower = CLIPModel.from_pretrained(folder).vision_model
    states = tower(pixels, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(Plain(tmp_path / "out").hidden(pixels), states, atol=1e-5, rtol=0)


# Numbers of tensors and parameters, and a hash of names and shapes, of open_clip's own models of
# these names on the meta device: the same in open_clip 2.16.0, 2.29.0 and 3.3.0.
PUBLISHED = {
    "ViT-B-32": (302, 151_277_313, "c9073ef1bda02cc2"),
    "ViT-B-16": (302, 149_620_737, "a0493b154db04863"),
    "ViT-L-14": (446, 427_616_513, "df2574a2418a98f7"),
    "ViT-L-14-336": (446, 427_944_193, "8cc432ce1460181a"),
}
_LARGE = {
    "projection_dim": 768,
    "text_config": {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12},
}


def published_config(name: str) -> CLIPConfig:
    """OpenAI's, as transformers has it: what differs from its defaults."""
    edge, size = int(name.split("-")[2]), 336 if name.endswith("336") else 224
    vision: dict[str, Any] = {"patch_size": edge, "image_size": size}
    if "-L-" not in name:
        return CLIPConfig(text_config={}, vision_config=vision, projection_dim=512)
    vision |= {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
               "num_attention_heads": 16}  # fmt: skip
    return CLIPConfig(vision_config=vision, **_LARGE)


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_those_of_open_clips_own_models(name: str) -> None:
    config = published_config(name)
    with torch.device("meta"):
        state = open_clip_state(CLIPModel(config).state_dict())
    shapes = {each: list(tensor.shape) for each, tensor in state.items()}
    assert shapes == expected_shapes(model_settings(config))
    parameters = sum(tensor.numel() for tensor in state.values())
    digest = hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()
    assert (len(shapes), parameters, digest[:16]) == PUBLISHED[name]


def test_queries_keys_and_values_are_stacked_and_projections_turned(
    make: Make, tmp_path: Path
) -> None:
    folder = make({}, {}, torch.float16)
    export(clip_model(str(folder)), tmp_path / "out")
    before = load_file(folder / "model.safetensors")
    after = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    assert {each.dtype for each in after.values()} == {torch.float16}
    for theirs, ours in (("visual.", "vision_model"), ("", "text_model")):
        for kind in ("weight", "bias"):
            parts = [
                before[f"{ours}.encoder.layers.1.self_attn.{each}_proj.{kind}"] for each in "qkv"
            ]
            stacked = after[f"{theirs}transformer.resblocks.1.attn.in_proj_{kind}"]
            assert torch.equal(stacked, torch.cat(parts))
    assert torch.equal(after["visual.proj"], before["visual_projection.weight"].T)
    assert torch.equal(after["text_projection"], before["text_projection.weight"].T)
    assert torch.equal(after["logit_scale"], before["logit_scale"])


def test_the_config_says_what_open_clip_would_not_take_by_itself() -> None:
    plain = CLIPConfig(text_config={}, vision_config={}, projection_dim=512)
    assert model_settings(plain) == {  # ViT-B-32 of OpenAI
        "embed_dim": 512, "quick_gelu": True,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8,
                     "layers": 12},
    }  # fmt: skip
    large = CLIPConfig(  # ViT-H-14 of LAION
        text_config={"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16,
                     "num_hidden_layers": 24, "hidden_act": "gelu", "eos_token_id": 2},
        vision_config={"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16,
                       "num_hidden_layers": 32, "hidden_act": "gelu", "patch_size": 14},
        projection_dim=1024,
    )  # fmt: skip
    assert model_settings(large) == {
        "embed_dim": 1024, "quick_gelu": False,
        "vision_cfg": {"image_size": 224, "layers": 32, "width": 1280, "head_width": 80,
                       "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 1024, "heads": 16,
                     "layers": 24},
    }  # fmt: skip


@pytest.mark.parametrize("width", [768, 1152, 1664, 1408])
def test_the_hidden_width_survives_the_way_over_a_ratio(width: int) -> None:
    for hidden in range(width, 5 * width, 7):
        sizes = {"hidden_size": width, "intermediate_size": hidden, "num_attention_heads": 16}
        found = model_settings(CLIPConfig(text_config={}, vision_config=sizes))["vision_cfg"]
        assert int(width * found.get("mlp_ratio", 4.0)) == hidden


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None), ({"do_rescale": False}, "do_rescale false"),
        ({"size": {"shortest_edge": 256}}, "size {'shortest_edge': 256}"),
        ({"crop_size": {"height": 200, "width": 224}}, "crop_size {'height': 200, 'width': 224}"),
        ({"size": {"height": 224, "width": 224}}, "size {'height': 224, 'width': 224}"),
        ({"size": {"height": 224, "width": 224}, "do_center_crop": False}, None),
        ({"do_center_crop": False}, "size {'shortest_edge': 224}"),
        ({"resample": 2}, None), ({"resample": 1}, "resample 1"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor 0.0078"),
    ],
)  # fmt: skip
def test_preprocessing_is_open_clips_or_it_is_said_that_it_is_not(
    changed: dict[str, Any], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "lateen"):
        found = preprocess_settings({**PROCESSING, **changed}, 224)
    squashed = changed.get("do_center_crop") is False and "height" in changed.get("size", {})
    assert found == {
        "size": 224, "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6],
        "interpolation": "bilinear" if changed.get("resample") == 2 else "bicubic",
        "resize_mode": "squash" if squashed else "shortest",
    }  # fmt: skip
    assert (caplog.text == "") if said is None else (said in caplog.text)


def test_a_tokenizer_of_its_own_goes_with_it_and_clips_does_not(
    clip_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    model = clip_model(str(clip_folder))
    with caplog.at_level(logging.WARNING, "lateen"):
        export(model, tmp_path / "foreign")
        assert "tokenizer is not CLIP's own" in caplog.text
        caplog.clear()
        # As if the fixture's tokenizer were CLIP's.
        ids = model.text_encoder.prepare([open_clip._PROBE])[0]
        monkeypatch.setattr(open_clip, "_PROBE_IDS", ids)
        export(model, tmp_path / "clips")
        assert not caplog.text
    texts = ["a red dog on the beach"]
    tokenizers = [AutoTokenizer.from_pretrained(f) for f in (clip_folder, tmp_path / "foreign")]
    assert tokenizers[0](texts)["input_ids"] == tokenizers[1](texts)["input_ids"]
    names = {
        out: read_json(tmp_path / out / "open_clip_config.json")["model_cfg"]["text_cfg"].get(
            "hf_tokenizer_name"
        )
        for out in ("foreign", "clips")
    }
    assert names == {"foreign": "foreign", "clips": None}
    found = sorted(path.name for path in (tmp_path / "clips").iterdir())
    assert found == ["README.md", "open_clip_config.json", "open_clip_model.safetensors"]


def test_a_clip_that_lateen_exported_with_its_encoders_is_still_one(
    make: Make, tmp_path: Path
) -> None:
    folder = make({}, {})
    clip_model(str(folder)).save_pretrained(tmp_path / "m", encoders=True, local_paths=False)
    export(clip_model(str(folder)), tmp_path / "a")
    shutil.rmtree(folder)
    export(open_model(tmp_path / "m"), tmp_path / "b")
    first, second = (load_file(tmp_path / x / "open_clip_model.safetensors") for x in "ab")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_no_plain_clip_is_refused_with_what_to_do_instead(
    make: Make, siglip_folder: Path, clip_folder: Path, vit_folder: Path, bert_folder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    mixed = make({"hidden_act": "gelu"}, {})
    tower = load_encoder(str(clip_folder), "image", pooling="projection")
    other = load_encoder(str(mixed), "text", pooling="projection")
    alone = [load_encoder(str(vit_folder), "image", pooling="cls"),
             load_encoder(str(bert_folder), "text", pooling="mean")]  # fmt: skip
    biased = clip_model(str(clip_folder))
    biased.logit_bias.data.fill_(-10)
    config = clip_model(str(clip_folder)).config
    config.head = {"name": "linear", "vision": "identity", "dim": 8, "dropout": 0.0}
    models = [
        (clip_model(str(siglip_folder)), "it is of type siglip"),
        (clip_model(str(mixed)), "its activations are gelu and quick_gelu"),
        (AlignedModel(config), r"heads of its own \(identity and linear\)"),
        (open_model(saved_model(tmp_path / "two", tower, other)), "not of one CLIP"),
        (open_model(saved_model(tmp_path / "others", *alone)), "not of the two towers of a CLIP"),
        (open_model(saved_model(tmp_path / "toys")), "not of the two towers of a CLIP"),
        (biased, "it has a bias"),
    ]
    for model, why in models:
        with pytest.raises(ModelError, match=why) as refused:
            export(model, tmp_path / "out")
        assert "A plain CLIP of transformers can be exported" in str(refused.value)
        assert not (tmp_path / "out").exists()


def test_the_command_exports_a_tuned_clip_with_its_licence_and_card(
    clip_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    plain, tuned, out = (tmp_path / name for name in ("plain", "tuned", "out"))
    shutil.copytree(clip_folder, plain)
    (plain / "LICENSE").write_text("MIT")
    (plain / "README.md").write_text("---\nlicense: mit\n---\n")
    state = CLIPModel.from_pretrained(plain).state_dict()
    vision = {k: 1.5 * each for k, each in state.items() if k.startswith("vis")}
    save_tuned_clip(plain, vision, tuned)
    capsys.readouterr()  # of transformers
    words = ["export", tuned, "--to", "open-clip", "--out", out]
    code, shown, err = call(capsys, *words)
    assert (code, err.count("\n")) == (0, 1)  # of the tokenizer
    assert "tokenizer is not CLIP's own" in err and "card" in shown
    weights = load_file(out / "open_clip_model.safetensors")
    assert torch.equal(weights["visual.proj"], vision["visual_projection.weight"].T)
    assert (out / "LICENSE").read_text() == "MIT"
    card = ModelCard.load(out / "README.md")
    assert (card.data.library_name, card.data.license) == ("open_clip", "mit")
    assert "**tuned**, as open_clip's weights and config." in card.text
    assert str(tmp_path) not in card.content
    code, _, err = call(capsys, *words)
    assert (code, "already holds a model" in err) == (2, True)
    code, shown, _ = call(capsys, "export", plain, *words[2:], "--overwrite", "--json")
    assert json.loads(shown)["model"] == str(out)
    weights = load_file(out / "open_clip_model.safetensors")
    assert torch.equal(weights["visual.proj"], state["visual_projection.weight"].T)


def test_the_command_says_in_one_line_what_cannot_be_exported(
    siglip_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["--to", "open-clip", "--out", tmp_path / "out"]
    code, out, err = call(capsys, "export", siglip_folder, *words)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "cannot hold this model: it is of type siglip. A plain CLIP" in err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "beach.jpg").write_text("a photograph")
    code, _, err = call(capsys, "export", siglip_folder, *words)
    assert (code, "not the folder of a model" in err) == (2, True)
    code, _, err = call(capsys, "export", siglip_folder, *words, "--with-encoders")
    assert (code, "--with-encoders belongs to --to lateen" in err) == (2, True)


@pytest.fixture
def library() -> Any:
    """open_clip itself, which needs a torchvision that fits torch."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("open_clip")
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"open_clip cannot be imported: {error}")


@pytest.mark.parametrize("form", FORMS)
def test_open_clip_loads_it_strictly_and_computes_the_same(
    make: Make, form: str, tmp_path: Path, library: Any
) -> None:
    folder, out = make(**FORMS[form]), tmp_path / "out"
    export(clip_model(str(folder)), out)
    model = library.create_model(f"local-dir:{out}").eval()
    config = read_json(out / "open_clip_config.json")["model_cfg"]
    found = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert found == expected_shapes(config)
    assert model.visual.preprocess_cfg["mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert model.visual.preprocess_cfg["size"] == (32, 32)
    pixels, ids = inputs()
    with torch.no_grad():
        ours = model.encode_image(pixels), model.encode_text(ids)
    for image_or_text, theirs in zip(ours, transformers_features(folder), strict=True):
        torch.testing.assert_close(image_or_text, theirs, atol=1e-5, rtol=0)
    tokenizer = library.get_tokenizer(f"local-dir:{out}")
    expected = AutoTokenizer.from_pretrained(folder)(["a red dog"])["input_ids"][0]
    assert tokenizer(["a red dog"])[0, : len(expected)].tolist() == expected


def test_the_probe_tells_open_clips_own_tokenizer(library: Any) -> None:
    ids = library.SimpleTokenizer()([open_clip._PROBE])[0]
    assert ids[: len(open_clip._PROBE_IDS)].tolist() == open_clip._PROBE_IDS
    assert not ids[len(open_clip._PROBE_IDS) :].any()
