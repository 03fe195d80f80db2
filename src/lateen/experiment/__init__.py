"""Whole experiments: a recipe from data to results, and a ladder of them."""

from lateen.experiment.ablation import ablate
from lateen.experiment.ladder_report import against_the_paper, ladder_tables
from lateen.experiment.page import add_results, read_metrics, result_tables, write_run_page
from lateen.experiment.run import RunResult, run

__all__ = [
    "RunResult",
    "ablate",
    "add_results",
    "against_the_paper",
    "ladder_tables",
    "read_metrics",
    "result_tables",
    "run",
    "write_run_page",
]
