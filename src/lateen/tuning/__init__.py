"""Tuning the image tower of a CLIP on images alone, towards a stronger vision encoder (KUEA)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lateen.exports import exported

if TYPE_CHECKING:
    from lateen.tuning.config import TUNE_PRESETS as TUNE_PRESETS
    from lateen.tuning.config import TuneRecipe as TuneRecipe
    from lateen.tuning.fitting import fit_kernel as fit_kernel
    from lateen.tuning.ladder import tune_ladder as tune_ladder
    from lateen.tuning.objective import kernel_alignment_loss as kernel_alignment_loss
    from lateen.tuning.tuner import Tuned as Tuned
    from lateen.tuning.tuner import tune as tune

__getattr__, __all__ = exported(
    __name__,
    {
        "lateen.tuning.config": ["TUNE_PRESETS", "TuneRecipe"],
        "lateen.tuning.fitting": ["fit_kernel"],
        "lateen.tuning.ladder": ["tune_ladder"],
        "lateen.tuning.objective": ["kernel_alignment_loss"],
        "lateen.tuning.tuner": ["Tuned", "tune"],
    },
)
