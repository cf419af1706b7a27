"""Technology nodes and their usual voltages, and prices that keep those they hold for."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, cast

from cimphony.errors import ChipError

NODES = (180, 130, 90, 65, 45, 32, 20, 16, 14, 10, 7)  # nm, of Stillmaker and Baas's tables
# supply voltage [V] taken where a chip states none: our choice
_NOMINAL = (1.8, 1.2, 1.1, 1.1, 1.0, 0.9, 0.9, 0.8, 0.8, 0.75, 0.7)

_Path = tuple[str, ...]


def nominal_voltage(node: float) -> float:
    """Usual supply voltage [V] of a node [m]."""
    return _NOMINAL[NODES.index(nearest(node))]


def nearest(node: float) -> int:
    """The table's node within a quarter of the size asked for [m]: 28 nm counts as 32, 22 as 20, 5 as nothing."""
    size = node * 1e9
    best = min(NODES, key=lambda known: abs(known / size - 1))
    if abs(best / size - 1) > 0.25:
        raise ChipError(
            f"node = {size:g} nm cannot be scaled; the tables go from 180 to 7 nm: {', '.join(map(str, NODES))}. "
            "Choose one of them, or give every component numbers of that node"
        )
    return best


def keep_conditions(old: Mapping[str, Any], new: dict[str, Any], stated: Collection[_Path]) -> None:
    """Where a chip's node or voltage changes, prices that it takes over keep the ones they hold for.

    Args:
        old: the description that is changed.
        new: what it becomes; prices get a `node` and a `voltage` here, so that cost scales them and says so.
        stated: paths of what the change states itself: such prices hold at the new node and voltage.

    Raises ChipError where a component states some of its prices and takes over the others.
    """
    moved, turned = (new.get(field) != old[field] for field in ("node", "voltage"))
    if not moved and not turned:
        return
    for path, part in _priced(new):
        node, voltage = moved and part.get("node") is None, turned and part.get("voltage") is None
        if any(_touched((*path, field), stated) for field in ("node", "voltage")):
            continue
        prices = [price for price in _prices(part) if node or (voltage and price != ("area",))]
        own = [price for price in prices if _touched((*path, *price), stated)]
        if own and len(own) < len(prices):
            raise ChipError(f"chip {new.get('name')!r}: " + _mixed(".".join(path), own, prices, old))
        if prices and not own:
            if voltage:
                part["voltage"] = old["voltage"] or nominal_voltage(part.get("node") or old["node"])
            if node:
                part["node"] = old["node"]


def leaf_paths(value: Any, path: _Path = ()) -> list[_Path]:
    """Where the values of nested mappings stand."""
    if not isinstance(value, dict):
        return [path]
    parts = cast(dict[str, Any], value)
    return [leaf for key, part in parts.items() for leaf in leaf_paths(part, (*path, str(key)))]


def _mixed(where: str, own: list[_Path], prices: list[_Path], old: Mapping[str, Any]) -> str:
    kept = ", ".join(".".join(price) for price in prices if price not in own)
    volts = f" at {old['voltage']:g} V" if old["voltage"] else ""
    return (
        f"{where}: {'.'.join(own[0])} is given beside another node or voltage, {kept} taken over from "
        f"{old['node'] * 1e9:g} nm{volts}; give all of them, or a node and a voltage in the component, for all it holds"
    )


def _touched(path: _Path, stated: Collection[_Path]) -> bool:
    """Whether a change states this, a part of it, or what it is a part of."""
    return any(all(a == b for a, b in zip(path, one, strict=False)) for one in stated)


def _priced(chip: dict[str, Any]) -> Iterator[tuple[_Path, dict[str, Any]]]:
    """The parts of a description that have prices and may have a node."""
    for name, unit in _mapping(chip, "units").items():
        for key, part in _mapping(unit, "components").items():
            if isinstance(part, dict):
                yield ("units", name, "components", key), cast(dict[str, Any], part)
        readout = _mapping(unit, "adc")
        if readout.get("kind") == "acam":
            yield ("units", name, "adc", "cell"), _mapping(readout, "cell")
        elif _mapping(readout, "energy_law").get("kind") != "survey":  # the survey knows every node
            yield ("units", name, "adc"), readout


def _prices(part: Mapping[str, Any]) -> list[_Path]:
    """Paths of the numbers that a node or a voltage changes; zero stays zero."""
    actions = [("energy", action) for action in _mapping(part, "energy")]
    plain = [(field,) for field in ("energy", "area", "leakage", "energy_law") if part.get(field)]
    return [*actions, *(path for path in plain if path != ("energy",) or not actions)]


def _mapping(parent: Any, key: str) -> dict[str, Any]:
    found = cast(dict[str, Any], parent).get(key) if isinstance(parent, dict) else None
    return cast(dict[str, Any], found) if isinstance(found, dict) else {}
