"""Labelled images: the field's classification sets, and any others of the same forms."""

from lateen.data.labels.labelled import LabelledImages, open_labelled
from lateen.data.labels.names import ClassName, read_class_names
from lateen.data.labels.sets import SETS, ClassificationSet, find_set

__all__ = [
    "SETS",
    "ClassName",
    "ClassificationSet",
    "LabelledImages",
    "find_set",
    "open_labelled",
    "read_class_names",
]
