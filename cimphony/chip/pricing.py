"""What a component may be priced by: the actions of its unit, and what an instance serves."""

import math
from collections.abc import Collection, Mapping

from cimphony.chip.part import Component

CROSSBAR_ACTIONS = {
    "read": "one read of one array, all its rows and columns",
    "cell": "one cell taking part in a read",
    "drive": "one row of one array driven for a read",
    "sample": "one column sampled",
    "convert": "one conversion, at any resolution",
    "add": "one shift-and-add of a converted sum",
    "load": "one byte of inputs into the register of an array",
    "store": "one byte of results out of an array's accumulators",
    "mac": "one multiply-add, whatever the reads it takes",
}
NOR_ACTIONS = {
    "cycle": "one clock cycle of one busy module",
    "mac": "one multiply-add",
    "write": "one byte of an operand written into the memory",
}
GAIN_CELL_ACTIONS = {
    "key_cell": "one cell of a key array taking part in a token",
    "value_cell": "one cell of a value array taking part in a token",
    "write": "one voltage written into a cell",
    "tile": "one sub-tile of one head serving one token",
    "token": "one token of one head",
}
ACAM_ACTIONS = {
    "sum": "one digital addition or comparison outside the arrays: of two logs, into a sum, with a largest score",
    "sign": "one sign of a product, from two",
}
SPECIAL_ACTIONS = {"element": "one number worked on"}
ROOFLINE_ACTIONS = {
    "mac": "one multiply-add of any product",
    "static_mac": "one multiply-add with stored weights",
    "dynamic_mac": "one multiply-add of two activations",
    "byte": "one byte moved between memory and processor",
    "element": "one number worked on outside products",
}


def check_components(components: Mapping[str, Component], actions: Collection[str], levels: Collection[str]) -> None:
    """ValueError for a component priced by an action, or serving a level, that its unit does not have."""
    for name, component in components.items():
        for action in component.energy:
            if action not in actions:
                raise ValueError(
                    f"components.{name}.energy: {action!r} is not an action of this unit; choose from "
                    f"{', '.join(actions)}"
                )
        if component.per not in levels:
            raise ValueError(
                f"components.{name}.per = {component.per!r} is not a level of this unit; choose from "
                f"{', '.join(levels)}"
            )


def instances(count: Mapping[str, int], level: str) -> int:
    """How many of a level one chip has; count is nested, innermost first. 1 for the chip itself."""
    names = list(count)
    return math.prod(count[name] for name in names[names.index(level) :]) if level in count else 1
