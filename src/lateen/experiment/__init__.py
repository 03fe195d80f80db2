"""Whole experiments: a recipe from data to results, a ladder of them, and what one will cost."""

from lateen.experiment.ladder import ablate
from lateen.experiment.ladder_report import against_the_paper, ladder_tables
from lateen.experiment.page import add_results, read_metrics, result_tables, write_run_page
from lateen.experiment.planning import plan
from lateen.experiment.recipe import Recipe
from lateen.experiment.run import RunResult, run
from lateen.experiment.train import train

__all__ = [
    "Recipe",
    "RunResult",
    "ablate",
    "add_results",
    "against_the_paper",
    "ladder_tables",
    "plan",
    "read_metrics",
    "result_tables",
    "run",
    "train",
    "write_run_page",
]
