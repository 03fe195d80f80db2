"""Published benchmarks for multimodal language models: their questions, and what answers score.

Nothing here runs a model: :func:`open_benchmark` reads the files that a benchmark's owners publish,
:func:`score` takes the answers that a model gave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lateen.exports import exported

if TYPE_CHECKING:
    from lateen.mllm.benchmarks.benchmark import BENCHMARKS as BENCHMARKS
    from lateen.mllm.benchmarks.benchmark import Benchmark as Benchmark
    from lateen.mllm.benchmarks.benchmark import open_benchmark as open_benchmark
    from lateen.mllm.benchmarks.captioned import captions_from as captions_from
    from lateen.mllm.benchmarks.captioned import pope_from_captions as pope_from_captions
    from lateen.mllm.benchmarks.questions import Question as Question
    from lateen.mllm.benchmarks.questions import QuestionSet as QuestionSet
    from lateen.mllm.benchmarks.questions import other_images as other_images
    from lateen.mllm.benchmarks.scoring import score as score
    from lateen.mllm.benchmarks.upload import write_upload as write_upload

__getattr__, __all__ = exported(
    __name__,
    {
        "lateen.mllm.benchmarks.benchmark": ["BENCHMARKS", "Benchmark", "open_benchmark"],
        "lateen.mllm.benchmarks.captioned": ["captions_from", "pope_from_captions"],
        "lateen.mllm.benchmarks.questions": ["Question", "QuestionSet", "other_images"],
        "lateen.mllm.benchmarks.scoring": ["score"],
        "lateen.mllm.benchmarks.upload": ["write_upload"],
    },
)
