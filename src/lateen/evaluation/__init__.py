"""Evaluations: thin runners around the metrics, with cached features."""

from lateen.evaluation.evaluate import (
    TASKS,
    evaluate,
    evaluate_classification,
    evaluate_retrieval,
    model_key,
    project_rows,
    retrieval_result,
)

__all__ = [
    "TASKS",
    "evaluate",
    "evaluate_classification",
    "evaluate_retrieval",
    "model_key",
    "project_rows",
    "retrieval_result",
]
