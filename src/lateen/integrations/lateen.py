"""A folder that lateen loads on any machine, with a card; also the encoders, if asked for.

The encoders' files are copied (``encoders``), or left to be found by their hub ids. Neither the
config nor the card has a folder of this machine in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lateen.progress import log

if TYPE_CHECKING:
    from lateen.model import AlignedModel, CardResult

MARKS = ("model.safetensors",)
BESIDE = ("vision_encoder", "text_encoder")


def export(
    model: AlignedModel, out: Path, *, encoders: bool = False, query_bank: bool = True,
    results: Sequence[CardResult] = (),
) -> None:  # fmt: skip
    """Write the model's folder.

    Args:
        model: an aligned model, or a plain CLIP as one.
        out: the folder.
        encoders: also copy the files of both encoders into it.
        query_bank: take the model's query bank along, if it carries one.
        results: for the card.

    Raises:
        ModelError: an encoder cannot be copied, as it is code, or nothing says where it is.
        EncoderError: its files are not where they were.
    """
    from lateen.model.saving import forget_paths  # torch; options are asked for without it

    model.save_pretrained(
        out, encoders=encoders, query_bank=query_bank, local_paths=False, results=results
    )
    if named := forget_paths(out):
        log.warning(
            "%s: %s name a folder of this machine; they are files of the encoders, whose hash they "
            "are a part of, and were left as they are", out, ", ".join(named),
        )  # fmt: skip
