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

from lateen.training.calibration import Calibration

if TYPE_CHECKING:
    from lateen.model import AlignedModel
    from lateen.model.query_bank import QueryBank

_TIMES = 4  # as likely as a photograph that nothing is known of
_FEWEST = 50  # photographs that tell


def calibration_of(
    model: AlignedModel, bank: QueryBank | None
) -> tuple[float, float, float] | None:
    """t and b of a probability, and the probability from which on a photograph is shown.

    ``None`` where nobody has calibrated the model, as of a CLIP without a query bank, or by too few
    photographs.

    Args:
        model: an aligned model.
        bank: its query bank, which is calibrated, too.
    """
    known = (model.config.training or {}).get("calibration")
    fit = Calibration(**known) if known else None if bank is None else bank.calibration
    if fit is None or fit.images < _FEWEST:
        return None
    return fit.scale, fit.bias, _TIMES / fit.one_in
