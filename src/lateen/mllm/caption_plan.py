"""What captions will cost, from a few that are asked for: tokens, dollars, time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from lateen.data import Dataset
from lateen.encoders.openai_server import is_server
from lateen.errors import DataError, ImageError
from lateen.features.rates import check_positive
from lateen.mllm.caption_table import CaptionTable
from lateen.mllm.captioner import Asked, Captioned, Captioner, as_jpeg, open_captioner, picture_of
from lateen.mllm.captioning import COLUMN, CaptionRun, Item, items_of, open_images, tokens_of

_MILLION = 1e6


def plan_captions(
    source: str | Path | Dataset,
    model: str | Path | Captioner,
    out: str | Path,
    *,
    asked: Asked | None = None,
    column: str = COLUMN,
    images: str | Path | None = None,
    image_column: str | None = None,
    split: str | None = None,
    at_once: int = 8,
    timeout: float = 120.0,
    overwrite: bool = False,
    device: str = "auto",
    samples: int = 3,
    price_in: float | None = None,
    price_out: float | None = None,
) -> dict[str, Any]:
    """Predict what :func:`~lateen.caption` costs, by asking for a few captions.

    These are kept beside ``out``, and are not asked for again. The rest is counted: it is taken to
    need as many tokens and as much time for each image, and the server to be as fast with
    ``at_once`` requests as with the few.

    Args:
        source: as :func:`~lateen.caption` has it, like all that is not named here.
        model: as there.
        out: as there.
        asked: how captions are asked for; as there by default.
        column: as there.
        images: as there.
        image_column: as there.
        split: as there.
        at_once: as there.
        timeout: as there.
        overwrite: as there.
        device: as there.
        samples: images to ask about, spread over all.
        price_in: dollars of a million tokens that are given.
        price_out: dollars of a million tokens that come.

    Returns:
        JSON-ready: ``images``, of which ``left_out`` by the reader, ``there`` already, and
        ``to_ask`` (one request each, copies counted again); ``sample`` (``id``, ``caption``,
        ``finish``, ``reason``, ``seconds``, tokens); ``sent_bytes``, ``tokens`` (``None`` where the
        server does not tell), ``dollars`` and ``seconds`` of what is to ask, the sample among it.

    Raises:
        UsageError: a number that is not above 0.
        DataError: there is no such source, or not one image of the sample can be read.
        LateenError: the captioning's own errors.
    """
    check_positive(samples=samples, price_in=price_in, price_out=price_out)
    asked = asked or Asked()
    table = CaptionTable(Path(out), column)
    dataset = open_images(source, images=images, image_column=image_column, split=split)
    captioner = open_captioner(model, asked, at_once=at_once, timeout=timeout, device=device)
    with table.begun(asked.identity(captioner), overwrite=overwrite) as kept:
        run = CaptionRun(dataset, captioner, asked, kept, retry_skipped=False)
        ids, left_out, there = [], 0, 0
        for item in items_of(dataset):
            if item.image is None:
                left_out += 1
            elif run.known(item) is not None:
                there += 1
            else:
                ids.append(item.id)
        sample = _ask_some(run, _drawn(dataset, ids, samples), captioner.at_once)
    sent = [_sent(each.item, asked) for each in sample] if is_server(captioner.name) else []
    return {
        "task": "plan", "out": str(table.path), "model": captioner.name,
        "images": left_out + there + len(ids), "left_out": left_out, "there": there,
        "to_ask": len(ids), "sample": [each.as_dict() for each in sample],
        "at_once": captioner.at_once,
        "sent_bytes": round(len(ids) * fmean(sent)) if sent else 0,
        **_predicted(sample, len(ids), captioner.at_once, price_in, price_out),
    }  # fmt: skip


@dataclass(frozen=True)
class _Sampled:
    """An image that was asked about, what was made of it, and the seconds that it took."""

    item: Item
    made: Captioned
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        made = self.made
        return {
            "id": self.item.id, "caption": made.caption, "finish": made.finish,
            "reason": made.reason, "seconds": self.seconds, "prompt_tokens": made.prompt_tokens,
            "answer_tokens": made.answer_tokens,
        }  # fmt: skip


def _drawn(dataset: Dataset, ids: Sequence[str], count: int) -> list[Item]:
    """So many of the images with these ids, evenly over all."""
    if not ids:
        return []
    places = np.linspace(0, len(ids) - 1, min(count, len(ids))).astype(int)
    chosen = {ids[place] for place in places.tolist()}
    return [item for item in items_of(dataset) if item.image is not None and item.id in chosen]


def _ask_some(run: CaptionRun, items: Sequence[Item], at_once: int) -> list[_Sampled]:
    """Ask about some images, as many at once as a run would.

    Raises:
        DataError: not one can be read.
    """

    def timed(item: Item) -> _Sampled:
        begin = time.perf_counter()
        made = run.ask(item)
        return _Sampled(item, made, time.perf_counter() - begin)

    with ThreadPoolExecutor(at_once) as pool:
        sample = list(pool.map(timed, items))
    if sample and all(each.made.finish == "unreadable" for each in sample):
        raise DataError(
            f"not one of {len(sample)} images of the sample can be read ({sample[0].made.reason})",
            "Draw more (--samples), or look at the images.",
        )
    return sample


def _sent(item: Item, asked: Asked) -> int:
    """Bytes of an image in a request: base64 has 4 for 3 of the file."""
    assert item.image is not None
    try:
        return len(as_jpeg(picture_of(item.image, asked.max_side))) * 4 // 3
    except ImageError:
        return 0


def _predicted(
    sample: Sequence[_Sampled], count: int, at_once: int, price_in: float | None,
    price_out: float | None,
) -> dict[str, Any]:  # fmt: skip
    """Tokens, dollars and seconds of so many images."""
    if not sample:
        return {"tokens": {"prompt": 0, "answer": 0}, "dollars": 0.0, "seconds": 0.0}
    made = [each.made for each in sample]
    told = all(m.prompt_tokens is not None for m in made if m.model and m.caption)
    tokens = None
    if told and any(m.prompt_tokens for m in made):
        spent = tokens_of(made)
        tokens = {name: round(count * number / len(made)) for name, number in spent.items()}
    dollars = None
    if tokens is not None and (price_in is not None or price_out is not None):
        dollars = tokens["prompt"] / _MILLION * (price_in or 0)
        dollars += tokens["answer"] / _MILLION * (price_out or 0)
    seconds = fmean(each.seconds for each in sample) * count / min(at_once, max(count, 1))
    return {"tokens": tokens, "dollars": dollars, "seconds": seconds}
