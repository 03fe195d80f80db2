"""Assessing pairs of frozen encoders: alignment probing and the cheap metrics beside it."""

from lateen.assessment.assess import assess, assess_stores
from lateen.assessment.tables import assessment_tables, findings

__all__ = ["assess", "assess_stores", "assessment_tables", "findings"]
