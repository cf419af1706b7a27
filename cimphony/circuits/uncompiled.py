"""Functions that torch.compile leaves alone."""

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def uncompiled(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` as it stands inside compiled graphs too: compiled, sums round in another way.

    As `torch.compiler.disable`, which loads the compiler at once; that takes seconds, and few models need it.
    """
    disabled: list[Any] = []

    @wraps(function)
    def call(*args: P.args, **given: P.kwargs) -> R:
        if not disabled and "torch._dynamo" in sys.modules:
            disabled.append(torch.compiler.disable(function))
        return (disabled[0] if disabled else function)(*args, **given)

    return call
