"""Several encoders as one: the features of fused stores, loading again, and what is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from toys import ColourEncoder, WordEncoder

from lateen.encoders import Encoder, FusedEncoder, PatchEncoder, load_encoder
from lateen.encoders.fused import fuse_features
from lateen.errors import EncoderError, UsageError
from lateen.features import encode, fuse
from lateen.files import canonical_json

IMAGES = [Image.new("RGB", (50, 40), colour) for colour in ("red", "green", "navy")]


def vit(folder: Path, pooling: str = "cls", **options: Any) -> Encoder:
    return load_encoder(str(folder), "image", pooling=pooling, precision="float32", **options)


def test_features_are_those_of_fused_stores(vit_folder: Path, album: Path, tmp_path: Path) -> None:
    parts = [ColourEncoder(), vit(vit_folder, "cls+mean"), vit(vit_folder, layer=1)]
    encoder = FusedEncoder(parts, [1, 2, 0.5])
    stores = [encode(album / "images", p, tmp_path / str(i)) for i, p in enumerate(parts)]
    fused = fuse(stores, tmp_path / "fused", weights=[1, 2, 0.5])
    direct = encode(album / "images", encoder, tmp_path / "direct")
    assert fused.ids == direct.ids
    assert fused.dim == encoder.info.dim == 6 + 32 + 16
    torch.testing.assert_close(direct[:], fused[:], rtol=2e-3, atol=2e-3)  # two float16 roundings
    image = Image.open(album / "images" / "003.png")
    row = encoder.encode(encoder.prepare([image]))[0]
    torch.testing.assert_close(row, fused[fused.ids.index("003.png")], rtol=2e-3, atol=2e-3)


def test_it_is_described_as_the_fused_store_is(
    vit_folder: Path, album: Path, tmp_path: Path
) -> None:
    parts = [vit(vit_folder), vit(vit_folder, "mean", layer=-2)]
    stores = [encode(album / "images", p, tmp_path / str(i)) for i, p in enumerate(parts)]
    stored = dict(fuse(stores, tmp_path / "fused").manifest.description.encoder)
    del stored["stores"]
    now = FusedEncoder(parts).info.as_dict()
    assert canonical_json({k: now[k] for k in stored}) == canonical_json(stored)
    assert now["pooling"] == "cls, mean at layer -2"


def test_it_can_be_loaded_again(vit_folder: Path) -> None:
    encoder = FusedEncoder([vit(vit_folder), vit(vit_folder, "mean", layer=2)], [1, 3])
    again = load_encoder(**encoder.info.load)
    assert isinstance(again, FusedEncoder)
    assert again.info == encoder.info
    torch.testing.assert_close(
        again.encode(again.prepare(IMAGES)), encoder.encode(encoder.prepare(IMAGES))
    )
    with pytest.raises(EncoderError, match="encodes images, not texts"):
        load_encoder(**encoder.info.load, modality="text")
    assert FusedEncoder([vit(vit_folder), ColourEncoder()]).info.load == {}


def test_a_network_is_loaded_and_run_once_for_all_its_parts(
    vit_folder: Path, bert_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = [("cls", None), ("mean", 1), ("mean", None)]
    for folder, modality, items in (
        (vit_folder, "image", IMAGES),
        (bert_folder, "text", ["a dog", "a big red dog runs"]),
    ):
        poolings = views if modality == "image" else [("first", None), *views[1:]]
        parts = [{"name": str(folder), "pooling": p, "layer": n} for p, n in poolings]
        options: dict[str, Any] = {"modality": modality, "precision": "float32"}
        encoder = load_encoder("fused", parts=parts, **options)
        alone = [load_encoder(part.pop("name"), **options, **part) for part in parts]  # type: ignore[arg-type]
        assert isinstance(encoder, FusedEncoder)
        assert encoder.info == FusedEncoder(alone).info
        networks = {id(part.network.model) for part in encoder.parts}  # type: ignore[attr-defined]
        assert len(networks) == 1
        passes: list[int] = []
        first: Any = encoder.parts[0]
        first.network.model.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        together = encoder.encode(encoder.prepare(items))
        assert len(passes) == 1
        apart = [part.encode(part.prepare(items)) for part in alone]
        assert torch.equal(together, fuse_features(apart, [1, 1, 1]))


def test_options_of_a_fused_name_hold_for_parts_without_their_own(vit_folder: Path) -> None:
    parts = [{"name": str(vit_folder)}, {"name": str(vit_folder), "pooling": "mean"}]
    encoder = load_encoder("fused", "image", pooling="cls", precision="float32", parts=parts)
    assert encoder.info.pooling == "cls, mean"
    assert encoder.info.precision == "float32"


def test_what_changes_features_changes_the_key(vit_folder: Path) -> None:
    cls, mean = vit(vit_folder), vit(vit_folder, "mean")
    encoders = [
        FusedEncoder([cls, mean]), FusedEncoder([mean, cls]), FusedEncoder([cls, mean], [1, 2]),
        FusedEncoder([cls, vit(vit_folder, "mean", layer=1)]), FusedEncoder([cls, mean, mean]),
    ]  # fmt: skip
    assert len({encoder.info.key for encoder in encoders}) == len(encoders)
    assert FusedEncoder([cls, mean], [1, 1]).info.key == encoders[0].info.key


def test_patches_of_one_grid_are_fused(vit_folder: Path) -> None:
    parts = [vit(vit_folder, "mean"), vit(vit_folder, "cls+mean")]
    encoder = FusedEncoder(parts)
    assert isinstance(encoder, PatchEncoder)
    patches = encoder.encode_patches(encoder.prepare(IMAGES))
    assert patches.shape == (3, 16, 48)
    mean = parts[0].encode_patches(parts[0].prepare(IMAGES))  # type: ignore[attr-defined]
    torch.testing.assert_close(patches[1, 5, :16], 4 * mean[1, 5] / mean[1, 5].norm())


class CoarsePatches(ColourEncoder):
    """The image's colours as one patch."""

    def encode_patches(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.encode(prepared)[:, None]


def test_patches_that_parts_lack_are_refused(vit_folder: Path) -> None:
    mean = vit(vit_folder, "mean")
    for other, message in (
        (ColourEncoder(), r"toys:colour_encoder, part of .*, has no features per patch"),
        (CoarsePatches(), "see 16 and 1 patches"),
        (vit(vit_folder), "pooling 'cls' has no features per patch"),
    ):
        encoder = FusedEncoder([mean, other])
        with pytest.raises(EncoderError, match=message):
            encoder.encode_patches(encoder.prepare(IMAGES))


def test_parts_that_do_not_fit_are_refused(vit_folder: Path) -> None:
    cls = vit(vit_folder)
    with pytest.raises(EncoderError, match=r"vit\S* encodes images, toys:word_encoder .* texts"):
        FusedEncoder([cls, WordEncoder()])
    with pytest.raises(UsageError, match="1 cannot be fused"):
        FusedEncoder([cls])
    with pytest.raises(UsageError, match="3 weights do not fit 2 parts"):
        FusedEncoder([cls, cls], [1, 2, 3])
    with pytest.raises(UsageError, match="is itself fused"):
        FusedEncoder([cls, FusedEncoder([cls, cls])])


def test_only_what_it_prepared_is_encoded(vit_folder: Path) -> None:
    encoder = FusedEncoder([vit(vit_folder), ColourEncoder()])
    with pytest.raises(EncoderError, match="each with a preprocessing of its own"):
        encoder.encode(list(torch.zeros(2, 3, 32, 32)))


def test_texts_are_as_long_as_their_longest_part(bert_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,caption\na.png,a big red dog\nb.png,the cat\n")
    parts = [
        load_encoder(str(bert_folder), "text", pooling="mean", precision="float32", **options)
        for options in ({}, {"prompt": "a small "}, {"layer": 1, "max_tokens": 4})
    ]
    encoder = FusedEncoder(parts)
    prepared = encoder.prepare(["a big red dog", "the cat"])
    assert [len(tokens) for tokens in prepared] == [8, 6]
    direct = encode_texts(tmp_path, encoder, "direct")
    stores = [encode_texts(tmp_path, part, str(i)) for i, part in enumerate(parts)]
    torch.testing.assert_close(direct[:], fuse(stores, tmp_path / "fused")[:], rtol=2e-3, atol=2e-3)


def encode_texts(folder: Path, encoder: Encoder, name: str) -> Any:
    (folder / "images").mkdir(exist_ok=True)
    for image in ("a.png", "b.png"):
        IMAGES[0].save(folder / "images" / image)
    return encode(folder / "t.csv", encoder, folder / name, images=folder / "images")
