"""From when on a photograph counts as showing what was asked: "nothing like that here" otherwise.

A model whose t and b are calibrated gives the probability σ(t · cosine + b) that a sentence is an
image's own, where one in 512 is (:mod:`lateen.training.calibration`). What is shown is at least
four times as likely as that. On photographs that trained nothing this loses one in a thousand of
the sentences that describe one of them, and one in ten of the things that captions mention, asked
for by a bare word; twice as much would lose three in ten of these (``benchmarks/cut_off.py``). Of
pictures, and of sentences beside pictures, nothing of the kind is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lateen.model import AlignedModel
    from lateen.model.query_bank import QueryBank

_TIMES = 4  # as likely as a photograph that nothing is known of


def calibration_of(
    model: AlignedModel, bank: QueryBank | None
) -> tuple[float, float, float] | None:
    """t and b of a probability, and the probability from which on a photograph is shown.

    ``None`` where nobody has calibrated the model, as of a CLIP without a query bank.

    Args:
        model: an aligned model.
        bank: its query bank, which is calibrated, too.
    """
    known = (model.config.training or {}).get("calibration")
    if known:
        return float(known["scale"]), float(known["bias"]), _TIMES / float(known["one_in"])
    if bank is not None and bank.calibration is not None:
        scale, bias, one_in = bank.calibration
        return scale, bias, _TIMES / one_in
    return None
