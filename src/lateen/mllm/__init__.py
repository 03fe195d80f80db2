"""Multimodal language models: a vision tower in front of a language model, asked about images."""

from transformers import AutoConfig, AutoModel

from lateen.mllm.asking import Answer, MultimodalModel, answer
from lateen.mllm.assembly import Assembled, assemble, build
from lateen.mllm.backbone import open_tower
from lateen.mllm.evaluation import evaluate_questions, open_questions
from lateen.mllm.fused import FusedTower, FusedTowerConfig, fuse_towers, open_towers
from lateen.mllm.tower import AlignedTower, AlignedTowerConfig

__all__ = [
    "AlignedTower",
    "AlignedTowerConfig",
    "Answer",
    "Assembled",
    "FusedTower",
    "FusedTowerConfig",
    "MultimodalModel",
    "answer",
    "assemble",
    "build",
    "evaluate_questions",
    "fuse_towers",
    "open_questions",
    "open_tower",
    "open_towers",
]

# So that transformers' own loaders know the towers inside saved models.
AutoConfig.register(AlignedTowerConfig.model_type, AlignedTowerConfig, exist_ok=True)
AutoModel.register(AlignedTowerConfig, AlignedTower, exist_ok=True)
AutoConfig.register(FusedTowerConfig.model_type, FusedTowerConfig, exist_ok=True)
AutoModel.register(FusedTowerConfig, FusedTower, exist_ok=True)
