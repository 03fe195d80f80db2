"""Evaluations: thin runners around the metrics, with cached features."""

from lateen.evaluation.classification import evaluate_classification
from lateen.evaluation.embedding import conditions, model_key, project_rows
from lateen.evaluation.evaluate import evaluate
from lateen.evaluation.retrieval import evaluate_retrieval, retrieval_result
from lateen.evaluation.task import Task, number
from lateen.evaluation.tasks import TASKS

__all__ = [
    "TASKS", "Task", "conditions", "evaluate", "evaluate_classification", "evaluate_retrieval",
    "model_key", "number", "project_rows", "retrieval_result",
]  # fmt: skip
