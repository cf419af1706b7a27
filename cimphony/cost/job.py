"""What an operation asks of a unit."""

from dataclasses import dataclass


@dataclass(slots=True)
class Job:
    """An operation of one repetition of a block, over one request."""

    counts: dict[str, float]  # actions
    seconds: float  # busy time on one instance of the unit, or on one copy of the weights
