"""Feature stores: self-describing shards on disk, read through memory maps, joined by id."""

from lateen.store.importing import import_features
from lateen.store.manifest import Description, Manifest
from lateen.store.pairs import Pairs, TextColumn, pair
from lateen.store.reader import Store
from lateen.store.writer import StoreWriter, clear_store

__all__ = [
    "Description",
    "Manifest",
    "Pairs",
    "Store",
    "StoreWriter",
    "TextColumn",
    "clear_store",
    "import_features",
    "pair",
]
