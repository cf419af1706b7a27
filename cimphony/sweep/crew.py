"""Who measures points: this process, local processes, or a Ray cluster. The same points give the same numbers."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from cimphony.errors import DataError
from cimphony.record import Record
from cimphony.sweep.study import Axes, Study

Functions = Mapping[str, Callable[[Any], float]]
_WORKER_BYTES = 1 << 30  # torch, transformers and the tensors of a small model
_COPIES = 6  # of the weights in a worker: the model, its cells and effective weights while they are made


_READY = None  # a worker's first word


class Died(str):
    """Why a worker died; its point is failed."""


class Crew(Protocol):
    """Workers that measure one point at a time each."""

    size: int

    def send(self, worker: int, axes: Axes) -> None:
        """Give an idle worker a point."""

    def receive(self) -> list[tuple[int, Record | Died | Exception]]:
        """Wait until at least one worker is idle again: what became of its point. A dead worker is replaced."""
        ...

    def close(self) -> None:
        """Stop all workers at once; points in work are lost, and measured again by the next run."""


def local_workers(study: Study) -> int:
    """As many workers as cores and free memory allow."""
    weights = sum(path.stat().st_size for path in _folder(study.model).glob("*.safetensors"))
    need = _WORKER_BYTES + _COPIES * weights
    return max(1, min(_cores(), int(_free_memory() * 0.8) // need))


def _folder(model: str) -> Path:
    own = Path(__file__).parent.parent / "models" / model
    return own if own.is_dir() else Path(model)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free_memory() -> float:
    """Bytes that can be used, in the container's limits too; unlimited where the system does not say."""
    free = float("inf")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
        group = Path("/sys/fs/cgroup")
        free = min(free, int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    except (OSError, ValueError, StopIteration):
        pass
    return free


class Here:
    """This process, one point after the other: for debugging, and for functions that cannot be sent."""

    def __init__(self, study: Study, functions: Functions) -> None:
        from cimphony.sweep.measure import Bench

        self.size, self._bench, self._done = 1, Bench(study, functions), list[tuple[int, Any]]()

    def send(self, worker: int, axes: Axes) -> None:
        """Measures at once."""
        self._done.append((worker, self._bench.point(axes)))

    def receive(self) -> list[tuple[int, Any]]:
        """What was measured."""
        done, self._done = self._done, []
        return done

    def close(self) -> None:
        """Nothing to stop."""


class Local:
    """Processes of this machine, with nothing of this one's state; one that dies takes only its own point with it."""

    def __init__(self, study: Study, functions: Functions, size: int) -> None:
        self.size, self._study, self._functions = size, study, functions
        _check_sendable(functions)
        self._context: Any = _context()
        self._ready: set[int] = set()
        self._workers = [self._start() for _ in range(size)]

    def _start(self) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._study, dict(self._functions)), daemon=True, name="cimphony sweep"
        )
        process.start()
        theirs.close()
        return process, ours

    def send(self, worker: int, axes: Axes) -> None:
        """One point through the worker's pipe; a worker that died idle is replaced first."""
        if worker in self._ready and not self._workers[worker][0].is_alive():
            self._bury(worker)
        with suppress(OSError):  # it died just now: receive finds out
            self._workers[worker][1].send(axes)

    def receive(self) -> list[tuple[int, Any]]:
        """Waits on all pipes; the end of a pipe is the death of its worker."""
        pipes = {pipe: number for number, (_, pipe) in enumerate(self._workers)}
        found: list[tuple[int, Any]] = []
        for pipe in wait(list(pipes)):
            assert isinstance(pipe, Connection)
            worker = pipes[pipe]
            try:
                said = pipe.recv()
                if said is _READY:
                    self._ready.add(worker)
                else:
                    found.append((worker, said))
            except (EOFError, OSError):
                found.append((worker, self._bury(worker)))
        return found

    def _bury(self, worker: int) -> Died | Exception:
        process, pipe = self._workers[worker]
        pipe.close()
        process.join()
        if worker not in self._ready:  # it would die again, and again
            return DataError(
                f"a worker ended{_how(process.exitcode)} before it could begin; what it said is above. In a script, "
                'run_study belongs under `if __name__ == "__main__":`'
            )
        self._ready.remove(worker)
        self._workers[worker] = self._start()
        return Died(_why(_how(process.exitcode)))

    def close(self) -> None:
        """Kills: a worker holds nothing that is not on disk or to be measured again."""
        for process, pipe in self._workers:
            process.kill()
            pipe.close()
        for process, _ in self._workers:
            process.join()


class Cluster:
    """Actors on a Ray cluster, one core each; the records are written here, so nodes need no common disk."""

    def __init__(self, study: Study, functions: Functions, size: int | None, address: str | None) -> None:
        try:
            self._ray: Any = import_module("ray")
        except ImportError:
            raise DataError("a sweep on Ray needs an extra package: pip install 'cimphony[ray]'") from None
        _check_sendable(functions)
        self._own = not self._ray.is_initialized()
        if self._own:
            self._connect(address, size)
        cores = max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self.size = min(size or cores, cores)  # an actor without a core would wait for ever
        self._arguments = study, dict(functions)
        actor = self._ray.remote(num_cpus=1)(_Actor)
        self._start = lambda: actor.remote(*self._arguments)
        self._actors = [self._start() for _ in range(self.size)]
        self._running: dict[Any, int] = {}

    def _connect(self, address: str | None, size: int | None) -> None:
        quiet = {"log_to_driver": False, "configure_logging": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a study tells nobody that it ran
        own = {"include_dashboard": False, "num_cpus": size} if address is None else {}
        try:
            self._ray.init(address=address or "local", **quiet, **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise DataError(f"Ray at {address!r} cannot be reached: {str(error).splitlines()[0]}") from None

    def send(self, worker: int, axes: Axes) -> None:
        """One point to an actor."""
        self._running[self._actors[worker].measure.remote(axes)] = worker

    def receive(self) -> list[tuple[int, Any]]:
        """Waits for the first; an actor that died is made anew, on whatever node has a core."""
        (reference,), _ = self._ray.wait(list(self._running), num_returns=1)
        worker, errors = self._running.pop(reference), self._ray.exceptions
        try:
            return [(worker, self._ray.get(reference))]
        except (errors.RayActorError, errors.OutOfMemoryError) as error:
            if getattr(error, "actor_init_failed", False):  # it would fail again, and again
                return [(worker, DataError(f"workers cannot start on Ray: {_last_line(error)}"))]
            self._actors[worker] = self._start()
            return [(worker, Died(_why()))]

    def close(self) -> None:
        """Ends the actors; a cluster that was joined goes on, one started here ends."""
        for actor in self._actors:
            self._ray.kill(actor)
        if self._own:
            self._ray.shutdown()


class _Actor:
    """A worker on a Ray node."""

    def __init__(self, study: Study, functions: Functions) -> None:
        from cimphony.sweep.measure import Bench

        self._bench = Bench(study, functions)

    def measure(self, axes: Axes) -> Any:
        """A point's record, or the error that stops the study."""
        return self._bench.point(axes)


def _serve(pipe: Connection, study: Study, functions: Functions) -> None:
    """A local worker's life: points in, records out, until the pipe ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    inbox: SimpleQueue[Axes] = SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    from cimphony.sweep.measure import Bench  # torch, seconds: only now, so that neither signal nor end is missed

    bench = Bench(study, functions)
    pipe.send(_READY)
    while True:
        pipe.send(bench.point(inbox.get()))


def _listen(pipe: Connection, inbox: "SimpleQueue[Axes]") -> None:
    """Points as they come; when the parent is gone, however it went, the worker goes too, in the middle of a point."""
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)


def _check_sendable(functions: Functions) -> None:
    try:
        pickle.dumps(dict(functions))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise DataError(
            f"functions cannot be sent to other processes ({error}); define them at the top of a module, or run with "
            "workers=0 in this process"
        ) from None


def _context() -> Any:
    """Where there is a fork server, it loads torch once for all workers, and shares its pages with them."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cimphony.sweep.measure"])
    return context


def _how(exit_code: int | None) -> str:
    """How a process ended."""
    if exit_code is None:
        return ""
    return f" with exit code {exit_code}" if exit_code >= 0 else f" by signal {signal.Signals(-exit_code).name}"


def _why(how: str = "") -> str:
    return (
        f"the worker died{how} while it measured this point; most often memory ran out: use fewer workers, or a "
        "smaller batch or text, then run again with --retry-failed"
    )


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
