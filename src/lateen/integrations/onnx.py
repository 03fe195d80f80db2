"""Two ONNX graphs, encoder and head in one, for onnxruntime; with what prepares images and texts.

``vision.onnx`` takes ``pixel_values`` and gives ``image_embedding``, ``text.onnx`` takes
``input_ids`` and ``attention_mask`` and gives ``text_embedding``: L2-normalised, of any number of
rows, so that their inner products are the model's cosines. They compute in float32.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateen.progress import log

if TYPE_CHECKING:
    from lateen.model import AlignedModel

CONFIG, VISION, TEXT = "onnx_config.json", "vision.onnx", "text.onnx"
MARKS = (CONFIG,)
BESIDE = ("vision*.onnx", "text*.onnx", "tokenizer.json", "preprocessor_config.json", "README.md")


def export(model: AlignedModel, out: Path, *, int8: bool = False) -> None:
    """Write both graphs, the tokenizer, the image processor's config and how to use them.

    Each graph is run and compared with the model, if onnxruntime is installed.

    Args:
        model: an aligned model, or a plain CLIP as one.
        out: the folder.
        int8: also write ``vision.int8.onnx`` and ``text.int8.onnx``, whose weights are bytes.

    Raises:
        MissingExtraError: a package is not installed.
        ModelError: an encoder does not run as a plain transformers model, cannot be exported, or
            has a prompt that goes on after the text; or a graph gives other embeddings.
    """
    from lateen.files import staged_files, write_json, write_text
    from lateen.model.card import title_of
    from lateen.model.graphs import write_image_graph, write_text_graph
    from lateen.model.sides import vision_side

    _, encoder = vision_side(model)
    with staged_files(out, last=CONFIG) as folder:
        inputs = write_text_graph(model, folder, TEXT)
        write_image_graph(model, folder / VISION)
        encoder.processor.save_pretrained(folder)
        if importlib.util.find_spec("onnxruntime") is None:
            log.warning("the graphs were not run: pip install 'lateen[onnx]' brings onnxruntime")
        else:
            _check(model, folder)
        for name in (VISION, TEXT) if int8 else ():
            _quantise(folder / name)
        write_text(folder / "README.md", _README.format(title=title_of(out)))
        height, width = encoder.image_size
        about = {
            "format": 1, "dim": model.config.head_settings.dim,
            "logit_scale": model.logit_scale.detach().exp().item(),
            "logit_bias": model.logit_bias.detach().item(),
            "loss": (model.config.training or {}).get("loss"),
            "image": {"height": height, "width": width}, "text": inputs.as_dict(),
            "vision_encoder": model.vision_encoder.info.weights,
            "text_encoder": model.text_encoder.info.weights,
        }  # fmt: skip
        write_json(folder / CONFIG, about)


def _check(model: AlignedModel, out: Path) -> None:
    """See that the graphs give what the model gives.

    Raises:
        ModelError: they do not.
    """
    import torch

    from lateen.model.graphs import MASK, PIXELS, TOKENS
    from lateen.model.sides import PROBE_TEXTS, check_alike, probe_images, text_side, vision_side

    (_, encoder), (_, side, _) = vision_side(model), text_side(model)
    ids, mask = side.pad_batch(side.prepare(list(PROBE_TEXTS)))
    pixels = torch.stack(list(encoder.prepare(probe_images())))
    images = run_graph(out / VISION, {PIXELS: pixels.numpy()})
    texts = run_graph(out / TEXT, {TOKENS: ids.cpu().numpy(), MASK: mask.cpu().numpy()})
    check_alike(model, torch.as_tensor(images), torch.as_tensor(texts), (VISION, TEXT))


def run_graph(path: Path, inputs: dict[str, Any]) -> Any:
    """What a graph gives for some inputs; those that it has no use for are left out."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    taken = {each.name: inputs[each.name] for each in session.get_inputs()}
    return session.run(None, taken)[0]


def _quantise(path: Path) -> None:
    """Write a graph with weights of bytes beside it; activations are quantised as they come."""
    import logging

    from onnxruntime.quantization import QuantType, quantize_dynamic

    root, level = logging.getLogger(), logging.getLogger().level
    root.setLevel(logging.ERROR)  # it recommends preprocessing in so many words
    try:
        quantize_dynamic(
            path, path.with_suffix(".int8.onnx"), weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"], per_channel=True,
        )  # fmt: skip
    finally:
        root.setLevel(level)


_README = """# {title}

Both sides of an image–text model as ONNX graphs, written by lateen.

```python
import json
import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer
from transformers import AutoImageProcessor

config = json.load(open("onnx_config.json"))["text"]
vision, text = (onnxruntime.InferenceSession(f"{{name}}.onnx") for name in ("vision", "text"))
tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation(config["max_tokens"] - len(config["end"]))
if config["pad_to"]:
    tokenizer.enable_padding(length=config["pad_to"], pad_id=config["pad"])
else:
    tokenizer.enable_padding(pad_id=config["pad"])


def run(session, **inputs):
    return session.run(None, {{each.name: inputs[each.name] for each in session.get_inputs()}})[0]


# Texts: config["prompt"] before each, lower case if config["lower"], config["end"] after its ids.
encoded = tokenizer.encode_batch(["a dog on a beach", "a cat"])
texts = run(text, input_ids=np.array([e.ids for e in encoded]),
            attention_mask=np.array([e.attention_mask for e in encoded]))
images = [Image.open("photo.jpg").convert("RGB")]
pixels = AutoImageProcessor.from_pretrained(".")(images, return_tensors="np")["pixel_values"]
print(run(vision, pixel_values=pixels) @ texts.T)  # cosines
```
"""
