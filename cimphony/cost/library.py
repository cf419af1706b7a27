"""Published circuit blocks as data, to build chips from."""

from functools import cache
from importlib.resources import files

import yaml

from cimphony.chip import Adc, Component, Link
from cimphony.chip.part import Part


class Library(Part):
    """Components, converters and links by name."""

    components: dict[str, Component]
    converters: dict[str, Adc]
    links: dict[str, Link]


@cache
def library() -> Library:
    """The blocks of components.yaml, each beside its source.

    With `dac = library().components["isaac-dac"]` a chip takes one by `chip.replace({"units.analog.components.dac":
    dac.model_dump()})`; in a chip file its fields are written out.
    """
    return Library.model_validate(yaml.safe_load((files("cimphony.cost") / "components.yaml").read_text("utf-8")))
