"""Pure metrics: features, embeddings or numbers in, numbers out; they know no model and no file."""

from lateen.metrics.cka import cka
from lateen.metrics.classification import (
    class_embeddings,
    class_ranks,
    classification,
    classification_of_ranks,
    confusion_matrix,
    most_confused,
)
from lateen.metrics.correlation import (
    Correlation,
    CorrelationGap,
    correlate,
    correlate_grid,
    correlate_units,
    correlation_gap,
)
from lateen.metrics.features import Features
from lateen.metrics.knn import knn_accuracy, knn_hits
from lateen.metrics.linear_probe import LinearProbe, linear_probe, linear_probe_folds
from lateen.metrics.nearest import nearest_neighbours
from lateen.metrics.neighbours import cknna, cycle_knn, mutual_knn
from lateen.metrics.permutation import Calibrated, calibrate, row_permutations
from lateen.metrics.resampling import (
    RecallHits,
    bootstrap_difference,
    bootstrap_recall,
    bootstrap_scores,
    percentile_interval,
    rank_hits,
    recall_hits,
)
from lateen.metrics.retrieval import (
    cross_ranks,
    mean_recall,
    retrieval,
    retrieval_of_ranks,
    retrieval_ranks,
    rsum,
)
from lateen.metrics.svcca import svcca

__all__ = [
    "Calibrated",
    "Correlation",
    "CorrelationGap",
    "Features",
    "LinearProbe",
    "RecallHits",
    "bootstrap_difference",
    "bootstrap_recall",
    "bootstrap_scores",
    "calibrate",
    "cka",
    "cknna",
    "class_embeddings",
    "class_ranks",
    "classification",
    "classification_of_ranks",
    "confusion_matrix",
    "correlate",
    "correlate_grid",
    "correlate_units",
    "correlation_gap",
    "cross_ranks",
    "cycle_knn",
    "knn_accuracy",
    "knn_hits",
    "linear_probe",
    "linear_probe_folds",
    "mean_recall",
    "most_confused",
    "mutual_knn",
    "nearest_neighbours",
    "percentile_interval",
    "rank_hits",
    "recall_hits",
    "retrieval",
    "retrieval_of_ranks",
    "retrieval_ranks",
    "row_permutations",
    "rsum",
    "svcca",
]
