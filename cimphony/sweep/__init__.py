"""Studies: one question asked of many chips, by a grid or a search; resumable, on one machine or a cluster."""

from cimphony.sweep.execute import run_study
from cimphony.sweep.fronts import front, uncovered
from cimphony.sweep.store import read_points
from cimphony.sweep.study import Axis, Study, load_study, make_study

__all__ = ["Axis", "Study", "front", "load_study", "make_study", "read_points", "run_study", "uncovered"]
