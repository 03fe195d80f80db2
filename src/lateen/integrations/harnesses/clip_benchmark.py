"""CLIP_benchmark (1.6) with models of ours: ``clip_benchmark eval --model_type lateen``.

``python -m lateen.integrations.harnesses.clip_benchmark`` is its command with that type added.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lateen.errors import LateenError, MissingExtraError, UsageError

if TYPE_CHECKING:
    import torch

    from lateen.integrations.harnesses.open_clip_style import OpenClipStyle, Preprocess, Tokenizer

MODEL_TYPE = "lateen"
_EXTRA = "clip-benchmark"


def load_lateen(
    model_name: str,
    pretrained: str = "",
    cache_dir: str | None = None,
    device: str | torch.device = "cpu",
) -> tuple[OpenClipStyle, Preprocess, Tokenizer]:
    """What CLIP_benchmark asks of a type of models: model, transform and tokenizer.

    Args:
        model_name: folder or hub id of an aligned model or a plain CLIP.
        pretrained: not used: a folder has one set of weights.
        cache_dir: not used.
        device: of encoders and heads.

    Raises:
        ModelError: there is no such model.
        EncoderError: an encoder is not where it was, or prepares images as no tensors.
    """
    from lateen.hardware import use_hardware
    from lateen.integrations.harnesses.open_clip_style import open_clip_style

    del pretrained, cache_dir
    with use_hardware(device=str(device)):
        style, transform, tokenizer = open_clip_style(model_name)
        _ = style.model.text_encoder  # loaded here, for the device
    return style.to(device), transform, tokenizer


def register() -> None:
    """Add the type ``lateen`` to CLIP_benchmark's, for as long as this process runs.

    Raises:
        MissingExtraError: it is not installed, or not all that it needs.
        UsageError: torchvision, which it needs, does not fit the torch that is there.
    """
    try:
        from clip_benchmark import models
    except ImportError as error:
        raise MissingExtraError(str(error.name), _EXTRA, "CLIP_benchmark") from error
    except RuntimeError as error:  # so torchvision ends that was built for another torch
        raise UsageError(
            f"CLIP_benchmark cannot be loaded: {error}",
            "Install a torchvision that was built for this torch, in an environment of its own.",
        ) from error
    models.TYPE2FUNC[MODEL_TYPE] = load_lateen
    if MODEL_TYPE not in models.MODEL_TYPES:
        models.MODEL_TYPES.append(MODEL_TYPE)


def main() -> None:
    """CLIP_benchmark's command, which knows the type ``lateen``."""
    try:
        register()
        sys.argv[1:] = _checked(sys.argv[1:])
        from clip_benchmark.cli import main as command

        command()
    except LateenError as error:
        sys.exit(f"error: {error}")


def _checked(words: Sequence[str]) -> list[str]:
    """The command's words; of a model of ours, with what its result is to name as weights.

    Raises:
        UsageError: they do not say where the result goes.
    """
    values = [word.partition("=")[2] or word for word in words]
    options = {word.partition("=")[0] for word in words}
    if "eval" not in words or MODEL_TYPE not in values:
        return list(words)
    if "--output" not in options:
        raise UsageError(
            "CLIP_benchmark names a result after its model, and a folder is no file name",
            "Say where it goes, with --output FILE.json.",
        )
    # Where nothing is said, the result would name weights of open_clip's.
    return [*words, *([] if "--pretrained" in options else ["--pretrained", MODEL_TYPE])]


if __name__ == "__main__":
    main()
