"""Whether what a model is exported to gives the model's own embeddings, door by door.

    python benchmarks/parity.py runs/f8k/model path/to/photographs path/to/captions.csv

The lowest and the mean cosine with the model's own embeddings in float32, on photographs, on odd
ones that are made here (CMYK, turned by EXIF, palette, grey, 1 × 1), and on captions, an empty text
and one that is cut. ``here`` is the model as it computes by itself, in whatever precision. Times
are of one photograph and of one text at a time, in turns, as a ratio to ``here``.
"""

import argparse
import csv
import io
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import AutoModel, AutoProcessor

from lateen.hardware import use_hardware
from lateen.integrations import tool
from lateen.model import AlignedModel, open_model
from lateen.model.model import as_image
from lateen.report.tables import Column, TableData

Side = Callable[[object], np.ndarray]


def odd(photograph: Path) -> list[Image.Image]:
    image = as_image(photograph)
    exif = Image.Exif()
    exif[0x0112] = 6
    forms = [("JPEG", image.convert("CMYK"), None), ("JPEG", image, exif),
             ("PNG", image.convert("P"), None), ("PNG", image.convert("L"), None),
             ("PNG", image.resize((1, 1)), None)]  # fmt: skip
    made = []
    for form, each, tags in forms:
        out = io.BytesIO()
        each.save(out, form, **({"exif": tags} if tags else {}))
        made.append(as_image(Image.open(out)))
    return made


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def onnx_sides(folder: Path, model: AlignedModel, kind: str) -> tuple[Side, Side]:
    vision, text = session(folder / f"vision{kind}.onnx"), session(folder / f"text{kind}.onnx")
    known = json.loads((folder / "onnx_config.json").read_text())["text"]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(known["max_tokens"] - len(known["end"]))

    def image(item: object) -> np.ndarray:
        pixels = model.vision_encoder.prepare([item])[0].numpy()[None]
        return vision.run(None, {"pixel_values": pixels})[0][0]

    def sentence(item: object) -> np.ndarray:
        ids = [*tokenizer.encode(known["prompt"] + str(item)).ids, *known["end"]]
        row = np.array([ids or [known["nothing"]]])
        given = {"input_ids": row, "attention_mask": np.ones_like(row)}
        return text.run(None, {each.name: given[each.name] for each in text.get_inputs()})[0][0]

    return image, sentence


def immich_sides(folder: Path, model: AlignedModel) -> tuple[Side, Side]:
    vision, text = session(folder / "visual/model.onnx"), session(folder / "textual/model.onnx")
    length = json.loads((folder / "config.json").read_text())["text_cfg"]["context_length"]
    pad = json.loads((folder / "textual/tokenizer_config.json").read_text())["pad_token"]
    tokenizer = Tokenizer.from_file(str(folder / "textual/tokenizer.json"))
    tokenizer.enable_padding(length=length, pad_token=pad, pad_id=tokenizer.token_to_id(pad))
    tokenizer.enable_truncation(max_length=length)
    dim = model.config.head_settings.dim

    def image(item: object) -> np.ndarray:
        pixels = model.vision_encoder.prepare([item])[0].numpy()[None]
        return vision.run(None, {"image": pixels})[0][0][:dim]

    def sentence(item: object) -> np.ndarray:
        ids = np.array([tokenizer.encode(" ".join(str(item).split())).ids], np.int32)
        return text.run(None, {"text": ids})[0][0][:dim]

    return image, sentence


def hub_sides(folder: Path) -> tuple[Side, Side]:
    model, processor = AutoModel.from_pretrained(folder), AutoProcessor.from_pretrained(folder)

    @torch.no_grad()
    def image(item: object) -> np.ndarray:
        found = model(**processor(images=[item], return_tensors="pt")).image_embeds
        return found[0].numpy()

    @torch.no_grad()
    def sentence(item: object) -> np.ndarray:
        given = processor(text=[str(item)], truncation=True, return_tensors="pt")
        return model(**given).text_embeds[0].numpy()

    return image, sentence


def sentence_transformers_sides(folder: Path) -> tuple[Side, Side]:
    model = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")

    def either(item: object) -> np.ndarray:
        return model.encode([item], show_progress_bar=False)[0]

    return either, either


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("photographs", type=Path)
    parser.add_argument("captions", type=Path, help="CSV with a column caption")
    parser.add_argument("--count", type=int, default=200)
    given = parser.parse_args()
    files = sorted(path for path in given.photographs.rglob("*") if path.is_file())
    images = [as_image(path) for path in random.Random(0).sample(files, given.count)]
    images += odd(files[0])
    with given.captions.open(encoding="utf-8") as file:
        said = [row["caption"] for row in csv.DictReader(file)]
    texts = random.Random(0).sample(said, given.count)
    texts += ["", "a dog " * 300]
    with use_hardware(precision="float32"):
        exact = open_model(given.model)
        own = exact.encode_image(images).numpy(), exact.encode_text(texts).numpy()
    model = open_model(given.model)
    here = (lambda i: model.encode_image(i)[0].numpy(), lambda t: model.encode_text(t)[0].numpy())
    doors: dict[str, tuple[Side, Side]] = {"here": here}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        for each in ("onnx", "immich", "transformers", "sentence-transformers"):
            (place / each).mkdir()
            options = {"int8": True} if each == "onnx" else {}
            tool(each).export(model, place / each, **options)
        again = open_model(given.model)
        again.save_pretrained(place / "again", encoders=True)
        moved = open_model(place / "again")
        doors["lateen, with encoders"] = (
            lambda i: moved.encode_image(i)[0].numpy(), lambda t: moved.encode_text(t)[0].numpy()
        )  # fmt: skip
        doors["transformers"] = hub_sides(place / "transformers")
        doors["sentence-transformers"] = sentence_transformers_sides(
            place / "sentence-transformers"
        )
        doors["onnx"] = onnx_sides(place / "onnx", model, "")
        doors["onnx, int8"] = onnx_sides(place / "onnx", model, ".int8")
        doors["immich"] = immich_sides(place / "immich", model)
        rows = [[door, *_row(sides, here, (images, texts), own)] for door, sides in doors.items()]
    columns = [Column("")]
    for what in (f"{len(images)} photographs", f"{len(texts)} texts"):
        columns += [Column(f"{what}: lowest cosine", 5), Column("mean", 5), Column("× time", 2)]
    print(TableData("Parity", columns, rows).markdown())


def _row(sides: tuple[Side, Side], here: tuple[Side, Side], items: tuple, own: tuple) -> list:
    row: list[float] = []
    for side, native, some, expected in zip(sides, here, items, own, strict=True):
        cosines = [float(side(item) @ row) for item, row in zip(some, expected, strict=True)]
        took = ([], [])
        for item in some[:30]:
            for function, seconds in zip((side, native), took, strict=True):
                begun = time.perf_counter()
                function(item)
                seconds.append(time.perf_counter() - begun)
        ratio = statistics.median(took[0]) / statistics.median(took[1])
        row += [min(cosines), statistics.mean(cosines), ratio]
    return row


if __name__ == "__main__":
    main()
