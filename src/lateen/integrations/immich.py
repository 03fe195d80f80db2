"""A folder for Immich's machine learning, so that a photo server searches with the model.

Immich knows models by a list of names, with the length of their embeddings. The model takes the
place of one: its embeddings get zeros behind them up to that length, which changes no cosine, and
its folder lies where Immich keeps what it has downloaded of that name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lateen.errors import ModelError
from lateen.progress import log

if TYPE_CHECKING:
    from torch import Tensor

    from lateen.model import AlignedModel
    from lateen.model.sides import TextSide, VisionSide

CONFIG, TEXTUAL, VISUAL = "config.json", "textual", "visual"
MARKS = (CONFIG,)
BESIDE = (TEXTUAL, VISUAL, "README.md")
PLACES = {
    512: "ViT-B-32__openai", 640: "RN50x4__openai", 768: "ViT-L-14__openai", 1024: "RN50__openai",
    1152: "ViT-SO400M-14-SigLIP-384__webli",
}  # fmt: skip
"""By the length of embeddings, a name that Immich knows, of a model that takes one sentence."""
_CONTEXT = 77  # tokens, if the encoder takes as many


def export(model: AlignedModel, out: Path) -> None:
    """Write both graphs, the tokenizer and the configs as Immich reads them.

    Args:
        model: an aligned model, or a plain CLIP as one.
        out: the folder.

    Raises:
        MissingExtraError: a package is not installed.
        ModelError: embeddings longer than any that Immich knows; a prompt, or an end of texts,
            which it does not add; or encoders of which no graph can be made.
    """
    import torch

    from lateen.files import staged_files, write_json, write_text
    from lateen.integrations.open_clip import preprocess_settings
    from lateen.model.card import title_of
    from lateen.model.graphs import write_graph, write_tokenizer
    from lateen.model.sides import text_side, vision_side

    dim = model.config.head_settings.dim
    width = next((known for known in PLACES if known >= dim), None)
    if width is None:
        raise ModelError(
            f"its embeddings have {dim} values, and Immich knows none longer than {max(PLACES)}",
            "Train with a smaller --head.dim.",
        )
    text, texts, inputs = text_side(model)
    vision, encoder = vision_side(model)
    if inputs.prompt or inputs.end:
        raise ModelError(
            "its text encoder needs a prompt or an end of texts, which Immich does not add",
            "Take a text encoder without one.",
        )
    if inputs.pad_to is None and inputs.pad in texts.prepare(["a dog"])[0]:
        raise ModelError(
            "its tokenizer ends texts with what it pads them with, and Immich gives no mask",
            "Take a text encoder whose padding is a token of its own.",
        )
    if encoder.image_size[0] != encoder.image_size[1]:
        raise ModelError("its images are not square, as Immich's are", "Take another encoder.")
    length = inputs.pad_to or min(_CONTEXT, inputs.max_tokens)
    size = encoder.image_size[0]
    batch = {0: torch.export.Dim("batch")}
    with staged_files(out, last=CONFIG) as folder:
        textual, visual = folder / TEXTUAL, folder / VISUAL
        textual.mkdir()
        visual.mkdir()
        # Texts come as one row of token ids with padding.
        ids = torch.full((2, length), inputs.pad, dtype=torch.int32)
        ids[:, 0] += 1  # a row of nothing but padding has no mean
        side = _padded_text(text, inputs.pad, width, masked=inputs.pad_to is None)
        write_graph(side, (ids,), (batch,), ("text",), "embedding_text", textual / "model.onnx")
        write_tokenizer(texts, textual, lower=inputs.lower)
        token = texts.tokenizer.convert_ids_to_tokens(inputs.pad)
        write_json(textual / "tokenizer_config.json", {"pad_token": token})
        # Images come as pixels.
        pixels = torch.zeros(2, 3, size, size)
        write_graph(_padded_image(vision, width), (pixels,), (batch,), ("image",),
                    "embedding_image", visual / "model.onnx")  # fmt: skip
        settings = preprocess_settings(encoder.info.preprocessing, size)
        write_json(visual / "preprocess_cfg.json", {**settings, "mode": "RGB", "fill_color": 0})
        words = {"title": title_of(out), "name": PLACES[width], "width": width}
        write_text(folder / "README.md", _README.format(**words))
        about = {"embed_dim": width, "vision_cfg": {"image_size": size},
                 "text_cfg": {"context_length": length}}  # fmt: skip
        write_json(folder / CONFIG, about)
    log.info("for Immich's model cache, as clip/%s; see README.md in it", PLACES[width])


def _padded_text(side: TextSide, pad: int, width: int, *, masked: bool) -> Any:
    """A text side that takes ids alone, and gives embeddings with zeros behind them."""
    import torch
    from torch import nn

    class Text(nn.Module):
        """Token ids ``[n, length]``, int32, to embeddings ``[n, width]``."""

        def __init__(self) -> None:
            super().__init__()
            self.side = side

        def forward(self, text: Tensor) -> Tensor:
            ids = text.long()
            mask = (ids != pad).long() if masked else torch.ones_like(ids)
            return _widened(self.side(ids, mask), width)

    return Text()


def _padded_image(side: VisionSide, width: int) -> Any:
    """A vision side that gives embeddings with zeros behind them."""
    from torch import nn

    class Image(nn.Module):
        """Pixels ``[n, 3, size, size]`` to embeddings ``[n, width]``."""

        def __init__(self) -> None:
            super().__init__()
            self.side = side

        def forward(self, image: Tensor) -> Tensor:
            return _widened(self.side(image), width)

    return Image()


def _widened(values: Tensor, width: int) -> Tensor:
    from torch.nn.functional import pad

    return pad(values, (0, width - values.shape[1]))


_README = """# {title}

An image–text model in the layout of Immich's machine learning, written by lateen. Immich takes
models by a list of names; this one stands in for `{name}`, whose embeddings have {width} values,
too.

1. Copy this folder into the model cache of `immich-machine-learning` as `clip/{name}`, in place of
   what is there (with a revision in the path where your version has one, such as
   `clip/{name}/main`: look at what lies there).
2. In the administration's machine-learning settings, choose `{name}` as the CLIP model, restart the
   container, and run the job "Smart Search" for all photographs: embeddings of another model mean
   nothing to this one.

Nothing is downloaded as long as the files are there. To go back, remove the folder and run the job
again.
"""
