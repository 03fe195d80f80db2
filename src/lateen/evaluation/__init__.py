"""Evaluations: one file per task, results that can be compared, and suites of them.

Names are loaded when first used: what tasks there are can be asked without loading any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lateen.exports import exported

if TYPE_CHECKING:
    from lateen.evaluation.comparison import Comparison as Comparison
    from lateen.evaluation.comparison import ComparisonRow as ComparisonRow
    from lateen.evaluation.comparison import compare as compare
    from lateen.evaluation.features import conditions as conditions
    from lateen.evaluation.features import model_key as model_key
    from lateen.evaluation.from_embeddings import evaluate_embeddings as evaluate_embeddings
    from lateen.evaluation.suite import SUITES as SUITES
    from lateen.evaluation.suite import evaluate_suite as evaluate_suite
    from lateen.evaluation.task import TASKS as TASKS
    from lateen.evaluation.task import Task as Task
    from lateen.evaluation.task import evaluate as evaluate
    from lateen.evaluation.task import number as number
    from lateen.evaluation.tasks.classification import (
        evaluate_classification as evaluate_classification,
    )
    from lateen.evaluation.tasks.retrieval import evaluate_retrieval as evaluate_retrieval
    from lateen.evaluation.tasks.retrieval import retrieval_result as retrieval_result
    from lateen.model.model import project_rows as project_rows

__getattr__, __all__ = exported(
    __name__,
    {
        "lateen.evaluation.comparison": ["Comparison", "ComparisonRow", "compare"],
        "lateen.evaluation.features": ["conditions", "model_key"],
        "lateen.evaluation.from_embeddings": ["evaluate_embeddings"],
        "lateen.evaluation.suite": ["SUITES", "evaluate_suite"],
        "lateen.evaluation.task": ["TASKS", "Task", "evaluate", "number"],
        "lateen.evaluation.tasks.classification": ["evaluate_classification"],
        "lateen.evaluation.tasks.retrieval": ["evaluate_retrieval", "retrieval_result"],
        "lateen.model.model": ["project_rows"],
    },
)
