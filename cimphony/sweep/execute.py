"""run_study: measures what is not yet recorded, keeps every point as it comes, and goes on after anything."""

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cimphony.errors import DataError
from cimphony.record import Record
from cimphony.sweep import search
from cimphony.sweep.apply import Point, check
from cimphony.sweep.crew import Cluster, Crew, Died, Functions, Here, Local, local_workers
from cimphony.sweep.store import Store, digest, failed
from cimphony.sweep.study import Axes, Study


def run_study(
    study: Study,
    folder: str | Path,
    *,
    workers: int | None = None,
    ray: str | bool = False,
    retry_failed: bool = False,
    functions: Functions | None = None,
    progress: bool = True,
) -> Record:
    """Measure all points of a study; those recorded in the folder already are kept, not measured again.

    Args:
        folder: where `study.yaml`, `points/` and `study.json` go.
        workers: local processes, or actors on Ray; None: what cores and memory allow; 0: this process. Processes are
            started fresh, so a script needs the usual `if __name__ == "__main__":`.
        ray: True: Ray on this machine; a string: the address of a cluster, for example "auto".
        retry_failed: measure failed points again.
        functions: measures of your own by name, each a function of the model on a chip that gives a number; with
            more than this process it must be importable there.
        progress: show a bar with the time left, on a terminal.

    Returns the record of the study, which is `study.json`. A point that fails is recorded with its message, and the
    others go on. Raises DataError where the study cannot run at all, or the folder holds another one.
    """
    functions = dict(functions or {})
    check(study, tuple(functions))
    wanted: list[Axes] = []
    total = study.search.points or sum(1 for _ in study.grid())
    with closing(Store(study, folder)) as store, _Bar(study.name, total, progress) as bar:
        if retry_failed:
            store.forget_failed()
        store.finish(wanted, complete=False)
        run = _Run(study, store, partial(_hire, study, functions, workers, ray), bar)
        try:
            for batch in search.batches(study, store):
                wanted += batch
                run.measure(batch)
        finally:
            run.close()
            least = 1 if study.search.points else total  # a search may end early, where everything is measured
            missing = any(digest(axes) not in store.points for axes in wanted) or len(wanted) < least
            record = store.finish(wanted, complete=not missing)
    return record


class _Bar(Progress):
    """One line with points done and failed, and the time left."""

    def __init__(self, title: str, total: int, show: bool) -> None:
        console = Console(stderr=True)
        points = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        rest = (TextColumn("{task.fields[said]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        shown = show and console.is_terminal
        super().__init__(*points, *rest, console=console, transient=True, disable=not shown)
        self._failed, self._points = 0, self.add_task(title, total=total, said="")

    def measured(self, record: Record) -> None:
        """One more point."""
        self._failed += record.results["status"] == "failed"
        self.update(self._points, advance=1, said=f"{self._failed} failed" if self._failed else "")

    def known(self, count: int) -> None:
        """Points that were there already take no part in the time left."""
        task = self.tasks[0]
        self.reset(self._points, total=task.total, completed=int(task.completed) + count, said=task.fields["said"])


@dataclass
class _Run:
    """Points on their way to workers, which start with the first point that is missing."""

    study: Study
    store: Store
    hire: Callable[[int], Crew]  # for so many points
    bar: _Bar
    crew: Crew | None = None

    def measure(self, points: Sequence[Axes]) -> None:
        """Measure those of the points that have no record."""
        missing = [axes for axes in points if digest(axes) not in self.store.points]
        if len(missing) < len(points):
            self.bar.known(len(points) - len(missing))
        if not missing:
            return
        crew = self.crew = self.crew or self.hire(len(missing))
        queue = _Queue(self.study, missing)
        working: dict[int, Axes] = {}
        while queue or working:
            for worker in (one for one in range(crew.size) if one not in working):
                if queue:
                    working[worker] = queue.take(worker)
                    crew.send(worker, working[worker])
            for worker, found in crew.receive():
                axes = working.pop(worker, None)
                if axes is not None:  # else it died between two points
                    self._keep(axes, found)

    def _keep(self, axes: Axes, found: Record | Died | Exception) -> None:
        if isinstance(found, Exception):
            raise DataError(str(found)) from None
        record = found if isinstance(found, Record) else failed(self.study, axes, str(found))
        self.store.put(record)
        self.bar.measured(record)

    def close(self) -> None:
        """Stop the workers."""
        if self.crew is not None:
            self.crew.close()


def _hire(study: Study, functions: Functions, workers: int | None, ray: str | bool, points: int) -> Crew:
    if ray:
        return Cluster(study, functions, workers, ray if isinstance(ray, str) else None)
    if workers == 0:
        return Here(study, functions)
    most = study.search.batch if study.search.kind == "optuna" else points
    return Local(study, functions, min(workers or local_workers(study), most))


class _Queue:
    """Points by what they share: a worker stays with its model, and with its converted model, as long as there are."""

    def __init__(self, study: Study, points: Sequence[Axes]) -> None:
        self._left: dict[str, dict[str, deque[Axes]]] = {}
        self._last: dict[int, tuple[str, str]] = {}
        self._study, self._count = study, len(points)
        for axes in points:
            model, converted = Point(study, axes).shares
            self._left.setdefault(model, {}).setdefault(converted, deque()).append(axes)

    def __len__(self) -> int:
        return self._count

    def take(self, worker: int) -> Axes:
        """The next point for a worker."""
        model, converted = self._last.get(worker, ("", ""))
        if model not in self._left:
            model = max(self._left, key=lambda one: len(self._left[one]))
        groups = self._left[model]
        if converted not in groups:
            converted = next(iter(groups))
            groups[converted] = groups.pop(converted)  # to the end: others begin with what nobody has begun
        axes = groups[converted].popleft()
        if not groups[converted]:
            del groups[converted]
        if not groups:
            del self._left[model]
        self._last[worker], self._count = (model, converted), self._count - 1
        return axes
