"""lateen turns frozen, pretrained vision and language encoders into a CLIP.

Public names are loaded when first used, so that importing lateen costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lateen.exports import exported
from lateen.registration import register_with_transformers

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
    from lateen.indexing import Index as Index
    from lateen.indexing import classify as classify
    from lateen.indexing import embed as embed
    from lateen.indexing import index as index
    from lateen.indexing import search as search
    from lateen.integrations import export as export
    from lateen.mllm import caption as caption
    from lateen.model import AlignedConfig as AlignedConfig
    from lateen.model import AlignedModel as AlignedModel
    from lateen.tuning import tune as tune

__version__ = "0.1.0"

register_with_transformers()

__getattr__, __all__ = exported(
    __name__,
    {
        "lateen.assessment": ["assess", "assess_stores"],
        "lateen.encoders": ["load_encoder"],
        "lateen.errors": ["LateenError"],
        "lateen.evaluation": ["compare", "evaluate"],
        "lateen.experiment": ["Recipe", "plan", "run", "train"],
        "lateen.features": ["Pairs", "Store", "encode", "fuse", "import_features", "pair"],
        "lateen.indexing": ["Index", "classify", "embed", "index", "search"],
        "lateen.integrations": ["export"],
        "lateen.mllm": ["caption"],
        "lateen.model": ["AlignedConfig", "AlignedModel"],
        "lateen.tuning": ["tune"],
    },
)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
