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
    from lateen.encoding import encode as encode
    from lateen.errors import LateenError as LateenError
    from lateen.evaluation import compare as compare
    from lateen.evaluation import evaluate as evaluate
    from lateen.experiment import run as run
    from lateen.image_search import search as search
    from lateen.model import AlignedConfig as AlignedConfig
    from lateen.model import AlignedModel as AlignedModel
    from lateen.planning import plan as plan
    from lateen.recipe import Recipe as Recipe
    from lateen.store import Pairs as Pairs
    from lateen.store import Store as Store
    from lateen.store import fuse as fuse
    from lateen.store import import_features as import_features
    from lateen.store import pair as pair
    from lateen.training import train as train

__version__ = "0.1.0"

_HOMES = {
    "AlignedConfig": "lateen.model",
    "AlignedModel": "lateen.model",
    "LateenError": "lateen.errors",
    "Pairs": "lateen.store",
    "Recipe": "lateen.recipe",
    "Store": "lateen.store",
    "assess": "lateen.assessment",
    "assess_stores": "lateen.assessment",
    "compare": "lateen.evaluation",
    "encode": "lateen.encoding",
    "evaluate": "lateen.evaluation",
    "fuse": "lateen.store",
    "import_features": "lateen.store",
    "load_encoder": "lateen.encoders",
    "pair": "lateen.store",
    "plan": "lateen.planning",
    "run": "lateen.experiment",
    "search": "lateen.image_search",
    "train": "lateen.training",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lateen' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
