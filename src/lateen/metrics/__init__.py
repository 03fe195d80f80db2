"""Pure metrics: tensors in, numbers out; they know no model and no file."""

from lateen.metrics.classification import class_embeddings, classification
from lateen.metrics.retrieval import mean_recall, retrieval, retrieval_ranks

__all__ = ["class_embeddings", "classification", "mean_recall", "retrieval", "retrieval_ranks"]
