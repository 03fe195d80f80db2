"""Features on disk: the pass that makes stores of samples, stores, and pairs of them by id."""

from lateen.features.columns import CaptionMeans, TextColumn
from lateen.features.encode import EncodeInputs, encode, encode_views
from lateen.features.fusing import fuse
from lateen.features.importing import import_features
from lateen.features.manifest import Description, Manifest
from lateen.features.pairs import Pairs, pair, pair_grid
from lateen.features.passes import token_batches
from lateen.features.shares import Share
from lateen.features.slices import Slice, encode_slice, merge
from lateen.features.store import Store, StoreRows
from lateen.features.writer import StoreWriter, clear_store

__all__ = [
    "CaptionMeans",
    "Description",
    "EncodeInputs",
    "Manifest",
    "Pairs",
    "Share",
    "Slice",
    "Store",
    "StoreRows",
    "StoreWriter",
    "TextColumn",
    "clear_store",
    "encode",
    "encode_slice",
    "encode_views",
    "fuse",
    "import_features",
    "merge",
    "pair",
    "pair_grid",
    "token_batches",
]
