"""The whole experiment as one strict, frozen, re-runnable YAML file.

A recipe has the sections ``data``, ``vision``, ``text``, ``head``, ``train`` and ``evaluate``, and
a ``preset`` that fills in a paper's values beneath those given explicitly. Every key can be
overridden by its dotted name (``--train.lr 1e-4``). Unknown keys are errors that name the nearest
valid one.

An :class:`AssessmentRecipe` is the file of ``lateen assess``: many encoders instead of one of each.
"""

from lateen.recipe.assessment import AssessmentRecipe, TextCandidate, VisionCandidate
from lateen.recipe.file import Recipe, keys, parse_value, read_yaml
from lateen.recipe.presets import PRESETS, Preset
from lateen.recipe.sections import (
    DataSection,
    EvaluateSection,
    FusedPart,
    FusedText,
    HeadName,
    HeadSection,
    Pooling,
    Precision,
    TextPooling,
    TextSection,
    TrainSection,
    VisionSection,
)

__all__ = [
    "PRESETS", "AssessmentRecipe", "DataSection", "EvaluateSection", "FusedPart", "FusedText",
    "HeadName", "HeadSection", "Pooling", "Precision", "Preset", "Recipe", "TextCandidate",
    "TextPooling", "TextSection", "TrainSection", "VisionCandidate", "VisionSection", "keys",
    "parse_value", "read_yaml",
]  # fmt: skip
