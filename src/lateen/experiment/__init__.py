"""Whole experiments: a recipe from data to results, a ladder of them, and what one will cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lateen.exports import exported

if TYPE_CHECKING:
    from lateen.experiment.ladder import ablate as ablate
    from lateen.experiment.ladder_report import against_the_paper as against_the_paper
    from lateen.experiment.ladder_report import ladder_figure as ladder_figure
    from lateen.experiment.ladder_report import ladder_sentences as ladder_sentences
    from lateen.experiment.ladder_report import ladder_tables as ladder_tables
    from lateen.experiment.page import add_results as add_results
    from lateen.experiment.page import read_metrics as read_metrics
    from lateen.experiment.page import result_tables as result_tables
    from lateen.experiment.page import run_figures as run_figures
    from lateen.experiment.page import write_run_page as write_run_page
    from lateen.experiment.planning import plan as plan
    from lateen.experiment.recipe import Recipe as Recipe
    from lateen.experiment.runs import RunResult as RunResult
    from lateen.experiment.runs import run as run
    from lateen.experiment.training import train as train

__getattr__, __all__ = exported(
    __name__,
    {
        "lateen.experiment.ladder": ["ablate"],
        "lateen.experiment.ladder_report": [
            "against_the_paper",
            "ladder_figure",
            "ladder_sentences",
            "ladder_tables",
        ],
        "lateen.experiment.page": [
            "add_results",
            "read_metrics",
            "result_tables",
            "run_figures",
            "write_run_page",
        ],
        "lateen.experiment.planning": ["plan"],
        "lateen.experiment.recipe": ["Recipe"],
        "lateen.experiment.runs": ["RunResult", "run"],
        "lateen.experiment.training": ["train"],
    },
)
