"""Whatever fails in a library or in code of the user's own is one error that names where."""

import json
import shutil
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lateen.encoders import EncoderInfo, PatchEncoder, load_encoder, load_towers
from lateen.encoders.faults import explained
from lateen.errors import EncoderError, UsageError, is_out_of_memory, reason

NAFLEX = (
    "is a NaFlex SigLIP 2, whose images keep their own shape (pixel_attention_mask, "
    "spatial_shapes), which lateen does not give it. Take the variant of a fixed resolution (model "
    "type siglip), such as google/siglip2-base-patch16-224."
)


def failure(call: Callable[[], Any]) -> EncoderError:
    """The one error of ``call``: a single line."""
    with pytest.raises(EncoderError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("modality", ["image", "text", None])
@pytest.mark.parametrize(
    "config",
    [
        {"architecture": "vit_tiny_patch16_224", "num_classes": 1000, "pretrained_cfg": {}},
        {"model_type": "timm_wrapper", "architecture": "vit_tiny_patch16_224"},
    ],
)
def test_a_checkpoint_of_timm_is_named(
    tmp_path: Path, config: dict[str, Any], modality: Any
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert str(failure(lambda: load_encoder(str(tmp_path), modality))) == (
        f"{tmp_path} is a checkpoint of timm, which lateen does not read. Give a copy in "
        "transformers' form, or an encoder of your own (package.module:function) that loads it "
        "with the package timm (pip install timm)."
    )


@pytest.mark.parametrize("kind", ["siglip2", "siglip2_vision_model"])
def test_naflex_images_are_refused_before_anything_is_loaded(tmp_path: Path, kind: str) -> None:
    from transformers import AutoConfig

    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    expected = f"{tmp_path} {NAFLEX}"
    assert str(failure(lambda: load_encoder(str(tmp_path), "image"))) == expected
    if kind == "siglip2":
        assert str(failure(lambda: load_towers(str(tmp_path)))) == expected


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_file_names_its_folder(bert_folder: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(bert_folder, tmp_path / "copy")
    (folder / name).write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(Exception, match=str(folder)) as caught:
        load_encoder(str(folder), "text", pooling="mean")
    assert type(caught.value).__module__ == "lateen.errors"
    assert caught.value.__cause__ is not None


def test_a_config_that_is_no_object_is_explained(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[]")
    assert "config.json is not the configuration of a model" in str(
        failure(lambda: load_encoder(str(tmp_path), "text"))
    )


def test_a_library_that_says_nothing_in_its_first_line(
    bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise ImportError("\n\nSomeTokenizer requires the Some library\nInstall it.\n")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", missing)
    error = failure(lambda: load_encoder(str(bert_folder), "text", pooling="mean"))
    assert str(error).startswith(
        f"cannot load the encoder in {bert_folder}: SomeTokenizer requires the Some library. "
    )
    assert isinstance(error.__cause__, ImportError)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("\n  \n first \n second"), "first"), (ValueError(""), "ValueError"),
        (ImportError("\n"), "ImportError"), (KeyError("size"), "'size'"),
    ],
)  # fmt: skip
def test_the_reason_is_the_first_line_that_says_something(error: Exception, said: str) -> None:
    assert reason(error) == said
    with pytest.raises(EncoderError, match="it failed") as caught, explained("it failed", "Do."):
        raise error
    assert str(caught.value) == f"it failed: {said}. Do."
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried"), UsageError("asked"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), KeyboardInterrupt(),
    ],
)  # fmt: skip
def test_what_has_an_answer_of_its_own_goes_on(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, explained("it failed", "Do."):
        raise error
    assert caught.value is error
    assert is_out_of_memory(error) == (not isinstance(error, UsageError | KeyboardInterrupt))


class Mine:
    """An encoder of one's own with two values per item; each part can be replaced."""

    def __init__(self, **parts: Any) -> None:
        self.info = EncoderInfo(id="mine", modality="image", dim=2, pooling="own", weights="v1")
        for name, part in parts.items():
            setattr(self, name, part)

    def prepare(self, items: Sequence[Any]) -> list[Any]:
        return list(items)

    def encode(self, prepared: Sequence[Any]) -> torch.Tensor:
        return torch.ones(len(prepared), 2)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], Any]:
    """The encoder that a factory makes, by its name ``own_code:make``."""

    def loaded(make: Callable[[], Any]) -> Any:
        module = types.ModuleType("own_code")
        module.make = make  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "own_code", module)
        return load_encoder("own_code:make")

    return loaded


def divides(*_: Any) -> Any:
    raise ZeroDivisionError("division by zero")


def test_a_failing_factory_and_method_are_named(
    load: Callable[[Callable[[], Any]], Any],
) -> None:
    error = failure(lambda: load(divides))
    assert str(error) == (
        "the encoder factory own_code:make failed: ZeroDivisionError: division by zero. Its trace "
        "is shown with --debug."
    )
    assert isinstance(error.__cause__, ZeroDivisionError)
    encoder = load(lambda: Mine(encode=divides))
    assert str(failure(lambda: encoder.encode([1]))) == (
        "own_code:make failed in Mine.encode: ZeroDivisionError: division by zero. Its trace is "
        "shown with --debug."
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.ones(3, 5), r"features \[3, 5\] where \[3, 2\] is due"),
        (torch.ones(2, 2), r"features \[2, 2\] where \[3, 2\] is due"),
        (torch.ones(3), r"features \[3\] where \[3, 2\] is due"),
        ([[1.0, 2.0]] * 3, r"a list of 3 where \[3, 2\] is due"),
        (None, r"a NoneType where \[3, 2\] is due"),
    ],
)
def test_a_wrong_shape_is_named(
    load: Callable[[Callable[[], Any]], Any], given: Any, said: str
) -> None:
    encoder = load(lambda: Mine(encode=lambda _: given))
    with pytest.raises(EncoderError, match=rf"own_code:make .* Mine\.encode: it gave {said}"):
        encoder.encode([1, 2, 3])


def test_patches_and_prepared_items_are_counted(load: Callable[[Callable[[], Any]], Any]) -> None:
    encoder = load(lambda: Mine(prepare=lambda _: [1], encode_patches=lambda _: torch.ones(1, 4)))
    assert isinstance(encoder, Mine)
    assert isinstance(encoder, PatchEncoder)
    with pytest.raises(EncoderError, match=r"Mine\.prepare: it gave a list of 1 for 2 items"):
        encoder.prepare([1, 2])
    with pytest.raises(EncoderError, match=r"features \[1, 4\] where \[1, patches, 2\] is due"):
        encoder.encode_patches([1])
    assert not isinstance(load(Mine), PatchEncoder)


def test_an_image_that_cannot_be_prepared_keeps_its_reason(
    load: Callable[[Callable[[], Any]], Any], tmp_path: Path
) -> None:
    from lateen.features import encode

    def picky(items: Sequence[Image.Image]) -> list[Any]:
        if items[0].width > 4:
            raise ValueError("too wide for me")
        return list(items)

    for name, width in (("a", 4), ("b", 8)):
        Image.new("RGB", (width, 4)).save(tmp_path / f"{name}.png")
    store = encode(tmp_path, load(lambda: Mine(prepare=picky)), tmp_path / "store")
    assert list(store.ids) == ["a.png"]
    assert "too wide for me" in (tmp_path / "store" / "skipped.jsonl").read_text()


def test_a_factory_asked_twice_gives_the_same_object(
    load: Callable[[Callable[[], Any]], Any],
) -> None:
    mine = Mine()
    first, guarded = load(lambda: mine), mine.encode
    assert load(lambda: mine) is first is mine
    assert mine.encode is guarded


def test_code_that_cannot_be_imported_is_said_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_written.py").write_text("value = absent\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert str(failure(lambda: load_encoder("half_written:make"))) == (
        "cannot find the encoder factory 'half_written:make': NameError: name 'absent' is not "
        "defined. It must be package.module:function, importable from here."
    )
