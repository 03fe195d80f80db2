"""Samples and where they come from: folders, tables, COCO JSON, shards, the Hugging Face hub."""

from lateen.data.coco import CocoCaptions
from lateen.data.fingerprint import combine, file_hashes, hash64
from lateen.data.folder import ImageFolder
from lateen.data.hub import HubDataset
from lateen.data.images import IMAGE_SUFFIXES, decode_image, upright_rgb
from lateen.data.open import open_dataset
from lateen.data.prompts import TEMPLATES, class_name, class_prompts
from lateen.data.samples import (
    Dataset,
    FileImage,
    ImageSource,
    ListDataset,
    MemoryImage,
    Sample,
    Skip,
    TarImage,
)
from lateen.data.tables import Table
from lateen.data.webdataset import WebDataset

__all__ = [
    "IMAGE_SUFFIXES",
    "TEMPLATES",
    "CocoCaptions",
    "Dataset",
    "FileImage",
    "HubDataset",
    "ImageFolder",
    "ImageSource",
    "ListDataset",
    "MemoryImage",
    "Sample",
    "Skip",
    "Table",
    "TarImage",
    "WebDataset",
    "class_name",
    "class_prompts",
    "combine",
    "decode_image",
    "file_hashes",
    "hash64",
    "open_dataset",
    "upright_rgb",
]
