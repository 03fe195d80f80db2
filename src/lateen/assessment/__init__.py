"""Assessing pairs of frozen encoders: alignment probing and the cheap metrics beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lateen.exports import exported

if TYPE_CHECKING:
    from lateen.assessment.assessment import assess as assess
    from lateen.assessment.assessment import assess_stores as assess_stores
    from lateen.assessment.page import assessment_figures as assessment_figures
    from lateen.assessment.tables import assessment_tables as assessment_tables
    from lateen.assessment.tables import findings as findings

__getattr__, __all__ = exported(
    __name__,
    {
        "lateen.assessment.assessment": ["assess", "assess_stores"],
        "lateen.assessment.page": ["assessment_figures"],
        "lateen.assessment.tables": ["assessment_tables", "findings"],
    },
)
