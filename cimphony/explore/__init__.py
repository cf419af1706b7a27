"""Explore: a page on this machine that turns the knobs of a chip and shows what it costs. No torch until it traces."""

from cimphony.explore.knobs import Knob, knobs
from cimphony.explore.server import ExploreServer
from cimphony.explore.workbench import Workbench

__all__ = ["ExploreServer", "Knob", "Workbench", "knobs"]
