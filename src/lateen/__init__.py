"""lateen turns frozen, pretrained vision and language encoders into a CLIP.

Public names are loaded when first used, so that importing lateen costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lateen.assessment import assess as assess
    from lateen.assessment import assess_stores as assess_stores
    from lateen.encoders import load_encoder as load_encoder
    from lateen.errors import LateenError as LateenError
    from lateen.evaluation import compare as compare
    from lateen.evaluation import evaluate as evaluate
    from lateen.experiment import Recipe as Recipe
    from lateen.experiment import plan as plan
    from lateen.experiment import run as run
    from lateen.experiment import train as train
    from lateen.features import Pairs as Pairs
    from lateen.features import Store as Store
    from lateen.features import encode as encode
    from lateen.features import fuse as fuse
    from lateen.features import import_features as import_features
    from lateen.features import pair as pair
    from lateen.indexing import search as search
    from lateen.model import AlignedConfig as AlignedConfig
    from lateen.model import AlignedModel as AlignedModel

__version__ = "0.1.0"

# The package that each public name comes from.
_HOMES = {
    "assessment": ("assess", "assess_stores"),
    "encoders": ("load_encoder",),
    "errors": ("LateenError",),
    "evaluation": ("compare", "evaluate"),
    "experiment": ("Recipe", "plan", "run", "train"),
    "features": ("Pairs", "Store", "encode", "fuse", "import_features", "pair"),
    "indexing": ("search",),
    "model": ("AlignedConfig", "AlignedModel"),
}
_HOME_OF = {name: f"lateen.{home}" for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'lateen' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME_OF]
