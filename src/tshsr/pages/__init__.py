"""Pages for people: explanations and reports as single HTML files that need no network."""

from tshsr.render.charts import Chart, Curve, training_charts
from tshsr.render.galleries import Hit, Search, first_examples, search_captions, search_pictures
from tshsr.render.page import render_explanations
from tshsr.render.report import ReportPage, WordMaps, render_report

__all__ = [
    "Chart",
    "Curve",
    "Hit",
    "ReportPage",
    "Search",
    "WordMaps",
    "first_examples",
    "render_explanations",
    "render_report",
    "search_captions",
    "search_pictures",
    "training_charts",
]
