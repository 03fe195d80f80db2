"""A whole recipe: encode, train, evaluate, report."""

from lateen.experiment.page import add_results, read_metrics, result_tables, write_run_page
from lateen.experiment.run import RunResult, run

__all__ = [
    "RunResult",
    "add_results",
    "read_metrics",
    "result_tables",
    "run",
    "write_run_page",
]
