"""Multimodal language models: a vision tower in front of a language model, asked about images."""

from transformers import AutoConfig, AutoModel

from lateen.mllm.asking import Answer, MultimodalModel, answer
from lateen.mllm.assembly import Assembled, assemble, build
from lateen.mllm.backbone import open_tower
from lateen.mllm.comparison import compare_answers
from lateen.mllm.evaluation import evaluate_questions, open_questions
from lateen.mllm.swapping import Swapped, evaluate_swap, swap
from lateen.mllm.tower import AlignedTower, AlignedTowerConfig

__all__ = [
    "AlignedTower",
    "AlignedTowerConfig",
    "Answer",
    "Assembled",
    "MultimodalModel",
    "Swapped",
    "answer",
    "assemble",
    "build",
    "compare_answers",
    "evaluate_questions",
    "evaluate_swap",
    "open_questions",
    "open_tower",
    "swap",
]

# So that transformers' own loaders know the towers inside saved models.
AutoConfig.register(AlignedTowerConfig.model_type, AlignedTowerConfig, exist_ok=True)
AutoModel.register(AlignedTowerConfig, AlignedTower, exist_ok=True)
