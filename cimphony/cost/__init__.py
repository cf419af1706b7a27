"""Cost: what a workload costs on a chip. Torch-free, weight-free, milliseconds."""

from cimphony.cost.estimate import estimate
from cimphony.cost.report import CostReport, Entry

__all__ = ["CostReport", "Entry", "estimate"]
