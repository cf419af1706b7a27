"""The compiled library: finds the build for this machine. Plain ctypes, so one wheel serves every Python and torch.

There is one shared object per instruction set, all with the same functions and the same results, bit for bit.
Without any (no compiler at installation) everything still runs, on the slow definitions.
"""

import ctypes
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

InstructionSet = Literal["avx512", "avx2", "baseline"]

_LEVEL = {"avx512": 4, "avx2": 3, "baseline": 1}
_FOLDER = Path(__file__).parent / "kernels"

_p, _i32, _i64, _u32 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_uint32
_SIGNATURES: dict[str, tuple[type, ...]] = {
    "cim_bounds": (_p, _i64, _i64, _i64, _i64, _p),
    "cim_pack_cells": (_p, _p, _i64, _i64),
    "cim_unpack_cells": (_p, _i64, _i64, _i64, _p),
    "cim_pack_inputs": (_p, _i64, _i64, _i64, _i32, _i32, _i32, _i32, _p),
    "cim_read_tables": (_p, _p, _i32, _i32, _i32, _i64, _i64, _i64, _p),
    "cim_read_token": (_p, _p, _i64, _p, _i32, _i64, _i64, _p),
    "cim_read_direct": (_p, _p, _p, _i64, _i64, _p),
    "cim_random": (_u32, _u32, _i64, _i64, _p, _p, _p),
}


@cache
def available() -> tuple[InstructionSet, ...]:
    """Builds that are installed and that this machine can run, fastest first."""
    names = get_args(InstructionSet)
    baseline = _open("baseline")
    level = 0 if baseline is None else baseline.cim_instruction_set()
    return tuple(cast(InstructionSet, name) for name in names if _LEVEL[name] <= level and _open(name) is not None)


def library(name: InstructionSet | None = None) -> ctypes.CDLL | None:
    """The library for an instruction set, or the fastest there is; None, with one warning, where nothing was built.

    Raises ValueError where `name` is not installed or this machine cannot run it.
    """
    names = available()
    if name is not None and name not in names:
        raise ValueError(f"no build for {name!r} runs here; choose one of {names}")
    if not names:
        _warn()
        return None
    return _open(name or names[0])


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Threads for calls into the library, which release Python's lock."""
    return ThreadPoolExecutor(threads, thread_name_prefix="cimphony")


@cache
def _open(name: str) -> ctypes.CDLL | None:
    path = _FOLDER / f"kernels_{name}.so"
    if not path.exists():
        return None
    opened = ctypes.CDLL(str(path))
    for function, arguments in _SIGNATURES.items():
        getattr(opened, function).argtypes = arguments
        getattr(opened, function).restype = None
    return opened


@cache
def _warn() -> None:
    warnings.warn(
        "cimphony was installed without its compiled kernels; exact reads run on the reference, some hundred times "
        "slower. Install with a C++ compiler (gcc or clang) present to get them",
        RuntimeWarning,
        stacklevel=4,
    )
