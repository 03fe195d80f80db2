"""Multimodal language models: a vision tower in front of a language model, trained and asked about
images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lateen.exports import exported

if TYPE_CHECKING:
    from lateen.mllm.asking import Answer as Answer
    from lateen.mllm.asking import MultimodalModel as MultimodalModel
    from lateen.mllm.asking import answer as answer
    from lateen.mllm.assembly import Assembled as Assembled
    from lateen.mllm.assembly import assemble as assemble
    from lateen.mllm.assembly import build as build
    from lateen.mllm.backbone import open_tower as open_tower
    from lateen.mllm.caption_plan import plan_captions as plan_captions
    from lateen.mllm.captioning import caption as caption
    from lateen.mllm.comparison import compare_answers as compare_answers
    from lateen.mllm.config import MLLM_PRESETS as MLLM_PRESETS
    from lateen.mllm.config import MultimodalRecipe as MultimodalRecipe
    from lateen.mllm.evaluation import evaluate_questions as evaluate_questions
    from lateen.mllm.evaluation import open_questions as open_questions
    from lateen.mllm.fused import FusedTower as FusedTower
    from lateen.mllm.fused import FusedTowerConfig as FusedTowerConfig
    from lateen.mllm.fused import fuse_towers as fuse_towers
    from lateen.mllm.fused import open_towers as open_towers
    from lateen.mllm.planning import plan_stage as plan_stage
    from lateen.mllm.swapping import Swapped as Swapped
    from lateen.mllm.swapping import evaluate_swap as evaluate_swap
    from lateen.mllm.swapping import swap as swap
    from lateen.mllm.tower import AlignedTower as AlignedTower
    from lateen.mllm.tower import AlignedTowerConfig as AlignedTowerConfig
    from lateen.mllm.training import Trained as Trained
    from lateen.mllm.training import train as train

__getattr__, __all__ = exported(
    __name__,
    {
        "lateen.mllm.asking": ["Answer", "MultimodalModel", "answer"],
        "lateen.mllm.assembly": ["Assembled", "assemble", "build"],
        "lateen.mllm.backbone": ["open_tower"],
        "lateen.mllm.caption_plan": ["plan_captions"],
        "lateen.mllm.captioning": ["caption"],
        "lateen.mllm.comparison": ["compare_answers"],
        "lateen.mllm.config": ["MLLM_PRESETS", "MultimodalRecipe"],
        "lateen.mllm.evaluation": ["evaluate_questions", "open_questions"],
        "lateen.mllm.fused": ["FusedTower", "FusedTowerConfig", "fuse_towers", "open_towers"],
        "lateen.mllm.planning": ["plan_stage"],
        "lateen.mllm.swapping": ["Swapped", "evaluate_swap", "swap"],
        "lateen.mllm.tower": ["AlignedTower", "AlignedTowerConfig"],
        "lateen.mllm.training": ["Trained", "train"],
    },
)
