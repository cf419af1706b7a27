"""The errors users meet. Each message names the field, the value, what is allowed and the way out."""


class CimphonyError(Exception):
    """Any error this library raises on purpose."""


class ChipError(CimphonyError, ValueError):
    """A chip description, or a change to one, is not valid."""


class CapacityError(CimphonyError, ValueError):
    """A workload does not fit on the chip."""


class StateError(CimphonyError, RuntimeError):
    """A step was taken out of order, for example running a layer before programming it."""


class DataError(CimphonyError, ValueError):
    """A model, weight, input, file or record cannot be used as it is."""
