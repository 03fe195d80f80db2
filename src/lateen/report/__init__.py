"""Reports of plain data: contact sheets, plots, tables, and one-file HTML pages."""

from lateen.report.page import Headline, Page
from lateen.report.plots import bar_chart, ladder_plot, save_plot, svg, training_curve
from lateen.report.sheet import SheetHit, SheetRow, contact_sheet, hero_sheet, save_png
from lateen.report.tables import (
    Column,
    TableData,
    classification_table,
    hits_table,
    inspect_table,
    per_class_table,
    retrieval_table,
)

__all__ = [
    "Column",
    "Headline",
    "Page",
    "SheetHit",
    "SheetRow",
    "TableData",
    "bar_chart",
    "classification_table",
    "contact_sheet",
    "hero_sheet",
    "hits_table",
    "inspect_table",
    "ladder_plot",
    "per_class_table",
    "retrieval_table",
    "save_plot",
    "save_png",
    "svg",
    "training_curve",
]
