"""Feature stores: self-describing shards on disk, read a few rows at a time, joined by id."""

from lateen.store.fusing import fuse
from lateen.store.grid import pair_grid
from lateen.store.importing import import_features
from lateen.store.manifest import Description, Manifest
from lateen.store.pairs import Pairs, TextColumn, pair
from lateen.store.reader import Store
from lateen.store.rows import StoreRows
from lateen.store.writer import StoreWriter, clear_store

__all__ = [
    "Description",
    "Manifest",
    "Pairs",
    "Store",
    "StoreRows",
    "StoreWriter",
    "TextColumn",
    "clear_store",
    "fuse",
    "import_features",
    "pair",
    "pair_grid",
]
