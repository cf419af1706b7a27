"""Which points are measured, and in what order: a grid, random draws, or what Optuna proposes.

A search is a function of the study and of what the points measured: proposals come in batches of a fixed size, each
drawn with its own seed from the results of all batches before. So an interrupted search is simply run again, finds its
points recorded, and proposes what it would have; and the number of workers changes nothing.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from cimphony.errors import DataError
from cimphony.random import Stream
from cimphony.record import Record
from cimphony.sweep.store import Store, digest
from cimphony.sweep.study import Axes, Axis, Scalar, Study

_REPEATS = 20  # proposals of points that are known, in a row, before an unknown one is drawn
_MISSES = 100_000  # draws for one unknown point


def batches(study: Study, store: Store) -> Iterator[list[Axes]]:
    """Points in batches; the next batch is asked for when the last one is in the store."""
    if study.search.kind == "optuna":
        yield from _Proposals(study, store).batches()
    else:
        yield list(study.grid()) if study.search.kind == "grid" else _drawn(study, study.search.points or 0, set())


def _drawn(study: Study, count: int, known: set[str], skip: int = 0) -> list[Axes]:
    """Distinct points at random, fewer where the axes have no more; more points continue the same draws."""
    stream, width = Stream(study.search.seed, study.name, "random search"), len(study.axes)
    if all(axis.values for axis in study.axes.values()):
        count = min(count, math.prod(len(axis.grid()) for axis in study.axes.values()) - len(known))
    found: dict[str, Axes] = {}
    for draw in range(skip, skip + _MISSES + count):
        if len(found) == count:
            break
        shares = stream.uniform(draw * width, width)
        axes = {name: axis.at(float(share)) for (name, axis), share in zip(study.axes.items(), shares, strict=True)}
        if digest(axes) not in known:
            found.setdefault(digest(axes), axes)
    return list(found.values())


class _Proposals:
    """Optuna's side of a study."""

    def __init__(self, study: Study, store: Store) -> None:
        try:
            self._optuna: Any = import_module("optuna")
        except ImportError:
            raise DataError("a search needs an extra package: pip install 'cimphony[search]'") from None
        self._study, self._store = study, store
        self._seen: set[str] = set()
        self._shared = study.search.storage is not None
        self._distributions = {name: _distribution(self._optuna, axis) for name, axis in study.axes.items()}
        with self._quietly():
            self._trials = self._open()

    def _open(self) -> Any:
        """Optuna's study, in the database of the search or in a journal in the study's folder."""
        where = self._study.search.storage or self._journal(Path(self._store.folder) / "search.journal")
        ways = [f"{way}imize" for way in self._study.goals.values()]
        try:
            return self._optuna.create_study(
                storage=where, study_name=self._study.name, directions=ways, load_if_exists=True
            )
        except Exception as error:  # whatever the database says
            raise DataError(f"search.storage {where!r} cannot be used: {str(error).splitlines()[0]}") from None

    def _journal(self, file: Path) -> Any:
        """Begun anew: it is made again from the records, which are the truth, whatever a kill left of it."""
        for old in file.parent.glob(f"{file.name}*"):  # and its lock
            old.unlink()
        backend = import_module("optuna.storages.journal")
        return self._optuna.storages.JournalStorage(backend.JournalFileBackend(str(file)))

    def batches(self) -> Iterator[list[Axes]]:
        """Batches until there are enough points, or no more."""
        if self._shared:
            with self._quietly():
                self._take_in()
        number = 0
        while (left := (self._study.search.points or 0) - len(self._seen)) > 0:
            with self._quietly():
                asked = self._ask(min(left, self._study.search.batch), number)
            if not asked:
                return
            yield [axes for axes, _ in asked]
            with self._quietly():
                for axes, trial in asked:
                    self._tell(axes, trial)
            number += 1

    def _take_in(self) -> None:
        """A shared database: what other machines measured counts, what is recorded here and not there is added."""
        told = [trial for trial in self._trials.trials if "point" in trial.user_attrs]
        self._seen |= {trial.user_attrs["point"] for trial in told}
        for name, record in self._store.points.items():
            if name not in self._seen:
                self._add(record.settings["axes"])
                self._seen.add(name)

    def _ask(self, count: int, number: int) -> list[tuple[Axes, Any]]:
        """Points that are not known yet, each with its trial."""
        seed = (self._study.search.seed * 1_000_003 + number) % 2**32
        self._trials.sampler = self._sampler(seed)
        found: list[tuple[Axes, Any]] = []
        repeats = 0
        while len(found) < count and repeats < _REPEATS:
            trial = self._trials.ask(self._distributions)
            axes = {name: _plain(axis, trial.params[name]) for name, axis in self._study.axes.items()}
            if digest(axes) in self._seen:
                repeats += 1
                self._tell(axes, trial)
            else:
                repeats = 0
                self._seen.add(digest(axes))
                trial.set_user_attr("point", digest(axes))
                found.append((axes, trial))
        if not found:
            for axes in _drawn(self._study, count, self._seen, skip=number * 1000):
                self._seen.add(digest(axes))
                found.append((axes, None))
        return found

    def _sampler(self, seed: int) -> Any:
        if self._study.search.sampler == "nsga2":
            return self._optuna.samplers.NSGAIISampler(seed=seed)
        startup = max(2 * len(self._study.axes), 5)
        return self._optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, multivariate=True)

    def _tell(self, axes: Axes, trial: Any) -> None:
        values = self._values(axes)
        if trial is None:
            self._add(axes)
        elif values is None:
            self._trials.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._trials.tell(trial, values)

    def _add(self, axes: Axes) -> None:
        """A trial that Optuna did not propose."""
        values, axis = self._values(axes), self._study.axes
        if values is None:
            return
        parameters = {name: _inside(axis[name], value) for name, value in axes.items()}
        self._trials.add_trial(
            self._optuna.trial.create_trial(
                params=parameters, distributions=self._distributions, values=values, user_attrs={"point": digest(axes)}
            )
        )

    def _values(self, axes: Axes) -> list[float] | None:
        record: Record | None = self._store.points.get(digest(axes))
        found = {} if record is None else record.results["measures"]
        goals = self._study.goals
        return [found[name] for name in goals] if all(name in found for name in goals) else None

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Without Optuna's lines for every trial, and its warnings that an option is new."""
        level = self._optuna.logging.get_verbosity()
        self._optuna.logging.set_verbosity(logging.WARNING)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                yield
            finally:
                self._optuna.logging.set_verbosity(level)


def _ordered(axis: Axis) -> bool:
    """Whether values are numbers in order, so that neighbours are alike."""
    given = axis.values or ()
    numbers = [value for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(numbers) == len(given) and numbers == sorted(numbers)


def _distribution(optuna: Any, axis: Axis) -> Any:
    """Lists are searched by position, ranges by value."""
    kinds = optuna.distributions
    if axis.values is not None:
        last = len(axis.values) - 1
        return kinds.IntDistribution(0, last) if _ordered(axis) else kinds.CategoricalDistribution(range(last + 1))
    if axis.whole:
        return kinds.IntDistribution(int(axis.low or 0), int(axis.high or 0), log=axis.log)
    return kinds.FloatDistribution(axis.low, axis.high, log=axis.log)


def _plain(axis: Axis, value: Any) -> Scalar:
    """The value that Optuna means."""
    return value if axis.values is None else axis.values[value]


def _inside(axis: Axis, value: Scalar) -> Any:
    """What Optuna calls the value."""
    return value if axis.values is None else axis.values.index(value)
