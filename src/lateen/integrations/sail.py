"""A file of heads as SAIL's released code writes it.

The format itself lies with the model (:mod:`lateen.model.sail`): it is a way to load and save one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lateen.model import AlignedModel


def export(model: AlignedModel, out: Path) -> None:
    """Write the heads, t and b; encoders are not in it.

    Raises:
        ModelError: heads that SAIL's code does not know.
    """
    model.save_sail_checkpoint(out)
