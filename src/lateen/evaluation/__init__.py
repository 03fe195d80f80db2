"""Evaluations: pure metrics on embeddings, and thin runners around them."""

from lateen.evaluation.classification import class_embeddings, classification
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
    "class_embeddings",
    "classification",
    "evaluate",
    "evaluate_classification",
    "evaluate_retrieval",
    "model_key",
    "project_rows",
    "retrieval_result",
]
