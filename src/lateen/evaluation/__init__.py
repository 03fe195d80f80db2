"""Evaluations: thin runners around the metrics, with cached features."""

from lateen.evaluation.classification import evaluate_classification
from lateen.evaluation.comparison import Comparison, ComparisonRow, compare
from lateen.evaluation.evaluate import evaluate
from lateen.evaluation.features import conditions, model_key
from lateen.evaluation.from_embeddings import evaluate_embeddings
from lateen.evaluation.retrieval import evaluate_retrieval, retrieval_result
from lateen.evaluation.suite import SUITES, evaluate_suite
from lateen.evaluation.task import Task, number
from lateen.evaluation.tasks import TASKS
from lateen.model.model import project_rows

__all__ = [
    "SUITES", "TASKS", "Comparison", "ComparisonRow", "Task", "compare", "conditions", "evaluate",
    "evaluate_classification", "evaluate_embeddings", "evaluate_retrieval", "evaluate_suite",
    "model_key", "number", "project_rows", "retrieval_result",
]  # fmt: skip
