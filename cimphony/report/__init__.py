"""Reports: records become one self-contained HTML file. Torch-free; whatever a report says, a record said before."""

from cimphony.report.page import Format, render_report, write_report
from cimphony.report.tables import (
    Table,
    accuracy_table,
    assumptions_of,
    breakdown_table,
    claims_table,
    cost_table,
    mapping_table,
    series,
)

__all__ = [
    "Format",
    "Table",
    "accuracy_table",
    "assumptions_of",
    "breakdown_table",
    "claims_table",
    "cost_table",
    "mapping_table",
    "render_report",
    "series",
    "write_report",
]
