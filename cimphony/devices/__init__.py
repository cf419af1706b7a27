"""What memory devices do to a target: one file per technology, pure functions of targets and random numbers.

A device maps target levels (0 to `top`, float64) to the levels a cell really holds. Its three moments:

- `program`: the error made once, when the cell is written;
- `age`: what time does to the programmed cell;
- `read_sd`: the spread of one read of the aged cell, or None where reads are quiet.

Levels are conductances in units of (g_max - g_min) / top above g_min. The constant part g_min is removed by a
reference column; its noise stays.
"""

from cimphony.devices.cells import CellState, hold

__all__ = ["CellState", "hold"]
