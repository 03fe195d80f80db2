"""What a run sends to text encoders behind a server, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lateen.encoders import Encoder, FusedEncoder, RemoteEncoder
from lateen.encoders.server import count_requests
from lateen.experiment.planning.rates import Split

_CHARACTERS_PER_TOKEN = 4  # of English text; no server tells it beforehand


def count_sent(
    splits: Mapping[str, Split], text: Encoder, price: float | None
) -> dict[str, Any] | None:
    """What all captions are to the servers of a text encoder; ``None`` where it has none.

    Args:
        splits: what there is.
        text: the recipe's text encoder; one that is fused may have several parts behind servers.
        price: dollars of a million tokens, if it is known.

    Returns:
        JSON-ready: ``encoders``, ``texts``, ``characters``, ``tokens`` (a quarter of the
        characters), ``requests`` (about), ``dollars`` (``None`` without a price).
    """
    parts = text.parts if isinstance(text, FusedEncoder) else [text]
    served = [each for each in parts if isinstance(each, RemoteEncoder)]
    if not served:
        return None
    columns = [c for split in splits.values() for name, c in split.items() if name is not None]
    texts = characters = requests = 0
    for encoder in served:
        [prompt] = encoder.prepare([""])
        for counted in columns:
            sent = counted.characters + len(counted) * len(str(prompt))
            texts += len(counted)
            characters += sent
            requests += count_requests(len(counted), sent)
    tokens = round(characters / _CHARACTERS_PER_TOKEN)
    return {
        "encoders": [each.info.id for each in served], "texts": texts, "characters": characters,
        "tokens": tokens, "requests": requests,
        "dollars": None if price is None else tokens * price / 1e6,
    }  # fmt: skip
