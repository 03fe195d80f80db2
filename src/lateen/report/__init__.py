"""Reports of plain data: contact sheets, plots, tables, and one-file HTML pages."""

from lateen.report.assessment_plots import LayerScore, Point, heat_map, layer_profile, scatter_plot
from lateen.report.curve_plots import CurvePanel, curve_plot
from lateen.report.page import Headline, Page
from lateen.report.plots import (
    bar_chart,
    ladder_figures,
    ladder_plot,
    save_figures,
    save_plot,
    svg,
    training_curve,
)
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
    "CurvePanel",
    "Headline",
    "LayerScore",
    "Page",
    "Point",
    "SheetHit",
    "SheetRow",
    "TableData",
    "bar_chart",
    "classification_table",
    "contact_sheet",
    "curve_plot",
    "heat_map",
    "hero_sheet",
    "hits_table",
    "inspect_table",
    "ladder_figures",
    "ladder_plot",
    "layer_profile",
    "per_class_table",
    "retrieval_table",
    "save_figures",
    "save_plot",
    "save_png",
    "scatter_plot",
    "svg",
    "training_curve",
]
