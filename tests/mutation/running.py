"""Runs mutants without ever writing one to a file: each lives in a forked process, and dies with it.

The tests are collected once. For a mutant within a function a child of that process exchanges the
function's code; for one that changes what happens at import, a child of a process that has not imported the
module yet imports the mutant instead. Either runs only the tests that reach the mutated statement.
"""

from __future__ import annotations

import gc
import importlib
import importlib.abc
import importlib.machinery
import inspect
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final, NoReturn

import hypothesis
import pytest

from .mutants import Mutant

ROOT: Final = Path(__file__).parents[2]
_WORTH_S: Final = 5.0
"""CPU time of the tests that a mutant may take."""
KILLED, SURVIVED, BROKEN = 1, 0, 3
_CPU_S: Final = 15
"""Of one mutant: more means that it does not end. CPU time, since the machine may be busy."""
_MEMORY_BYTES: Final = 4 * 1024**3
_PATIENCE_S: Final = 1800.0
_OPTIONS: Final = (
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),
    "-qq",
    "--capture=no",
    "-p",
    "no:cacheprovider",
    "--timeout=0",
)

Reach = Mapping[str, Mapping[int, Sequence[int]]]
"""By module and line: the tests, by number, that run the line."""


@dataclass(frozen=True)
class Reached:
    """What every test runs of the modules, how many lines in all, and how long it takes."""

    tests: tuple[str, ...]
    seconds: tuple[float, ...]
    widths: tuple[int, ...]
    lines: Reach

    def tests_for(self, mutant: Mutant, killers: Sequence[int] = ()) -> list[int]:
        """Numbers of the tests that can notice `mutant`, as many as are worth it.

        First those that noticed others in its function, `killers`; then those that reach little else.
        """
        lines = self.lines.get(mutant.module, {})
        found: set[int] = set()
        for line, numbers in lines.items():
            if not mutant.function or mutant.first <= line <= mutant.last:
                found |= set(numbers)
        first = [number for number in dict.fromkeys(killers) if number in found]
        others = sorted(found - set(first), key=lambda at: (self.widths[at], self.seconds[at], at))
        ordered = (*first, *others)
        spent = accumulate(self.seconds[number] for number in ordered)
        return [number for number, so_far in zip(ordered, spent, strict=True) if so_far < _WORTH_S]


def module_name(path: str) -> str:
    """`client/memcube/trust/pins.py` is `memcube.trust.pins`."""
    return ".".join(Path(path).with_suffix("").parts[1:])


# --- children


@dataclass
class Children:
    """As many processes at once as there are `slots`, each for one mutant, none for ever."""

    slots: int
    folder: Path
    cpu_s: int = _CPU_S

    def run(
        self, jobs: Iterable[tuple[int, Callable[[], int]]], done: Callable[[int, int], None]
    ) -> None:
        """Run each job in a child; `done(number, outcome)` in this process."""
        waiting, running = iter(jobs), dict[int, tuple[int, float, int]]()
        free = list(range(self.slots))
        exhausted = False
        while running or not exhausted:
            while free and not exhausted:
                job = next(waiting, None)
                if job is None:
                    exhausted = True
                    break
                slot = free.pop()
                running[self._start(slot, job[1])] = job[0], time.monotonic(), slot
            for pid, outcome in list(self._ended(running)):
                number, _, slot = running.pop(pid)
                free.append(slot)
                done(number, outcome)
            time.sleep(0.002)

    def _ended(self, running: Mapping[int, tuple[int, float, int]]) -> Iterator[tuple[int, int]]:
        for pid, (_, since, _) in running.items():
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                yield pid, code if code in (SURVIVED, BROKEN) else KILLED
            elif time.monotonic() - since > _PATIENCE_S:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                yield pid, KILLED

    def _start(self, slot: int, job: Callable[[], int]) -> int:
        pid = os.fork()
        if pid:
            return pid
        outcome = BROKEN
        try:
            self._prepare(slot)
            outcome = job()
        finally:
            os._exit(outcome)

    def _prepare(self, slot: int) -> None:
        place = self.folder / f"slot-{slot}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(place)
        silence()
        # A mutant may count for ever.
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (self.cpu_s, self.cpu_s))


def silence() -> None:
    """Whatever this process prints from now on goes nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)


# --- mutants within functions: exchanged in a process that has collected the tests


def exchange(mutant: Mutant) -> None:
    """The function of `mutant` runs the mutant's code from now on, wherever it was imported."""
    module = sys.modules[module_name(mutant.module)]
    assert module.__file__
    source = Path(module.__file__).read_text("utf-8")
    code = _inner(compile(mutant.source(source), module.__file__, "exec"), mutant.function)
    _function(module, mutant.function).__code__ = code


def _inner(code: CodeType, name: str) -> CodeType:
    for part in name.split("."):
        code = next(
            one for one in code.co_consts if isinstance(one, CodeType) and one.co_name == part
        )
    return code


def _function(module: ModuleType, name: str) -> FunctionType:
    *owner, last = name.split(".")
    found: Any = module
    for part in owner:
        found = getattr(found, part)
    found = inspect.getattr_static(found, last)
    found = found.fget if isinstance(found, property) else found
    found = getattr(found, "__func__", found)
    assert isinstance(found, FunctionType), name
    return found


class Session:
    """A plugin: once the tests are collected it calls `work` instead of running them."""

    def __init__(self, work: Callable[[list[pytest.Item]], None]) -> None:
        self._work = work

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        gc.freeze()
        self._work(list(session.items))
        return True


def run_items(items: Sequence[pytest.Item]) -> pytest.Item | None:
    """Run tests until one fails, which is returned."""
    for item, following in zip_longest(items, items[1:]):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if item.session.testsfailed:
            return item
    return None


# --- which test runs what


def trace(items: Sequence[pytest.Item], modules: Sequence[str], into: Path) -> int:
    """Run every test, and write down for each how long it took and which lines it ran."""
    files = {str(ROOT / module): module for module in modules}
    entries: list[tuple[str, float, dict[str, list[int]], bool]] = []
    for item, following in zip(items, (*items[1:], None), strict=True):
        lines: dict[str, set[int]] = {}
        begun, failed = time.process_time(), item.session.testsfailed
        tracer = _tracer(files, lines)
        threading.settrace(tracer)
        sys.settrace(tracer)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        passed = item.session.testsfailed == failed
        seconds = time.process_time() - begun
        found = {module: sorted(numbers) for module, numbers in lines.items()}
        entries.append((item.nodeid, seconds, found, passed))
    into.write_text(json.dumps(entries))
    return SURVIVED


def _tracer(files: Mapping[str, str], lines: dict[str, set[int]]) -> Any:
    def local(numbers: set[int]) -> Any:
        def line(frame: Any, event: str, _: Any) -> Any:
            if event == "line":
                numbers.add(frame.f_lineno)
            return line

        return line

    def call(frame: Any, _: str, __: Any) -> Any:
        module = files.get(frame.f_code.co_filename)
        if module is None:
            return None
        numbers = lines.setdefault(module, set())
        numbers.add(frame.f_lineno)
        return local(numbers)

    return call


# --- mutants of what happens at import


class _Instead(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Finds one module, and gives a mutant of it."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant, self._path = mutant, str(ROOT / mutant.module)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname != module_name(self._mutant.module):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, origin=self._path, is_package=False)

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str) -> bytes:
        return self._mutant.source(Path(self._path).read_text("utf-8")).encode()


def run_imported(mutant: Mutant, tests: Sequence[str]) -> int:
    """Import `mutant`, and run `tests` until one fails."""
    sys.meta_path.insert(0, _Instead(mutant))
    status = pytest.main([*_OPTIONS, "-x", *tests])
    return SURVIVED if status == pytest.ExitCode.OK else KILLED


def prepare() -> None:
    """Tests with random examples take the same ones in every run, and do not explain a failure."""
    hypothesis.settings.register_profile(
        "mutation",
        derandomize=True,
        database=None,
        deadline=None,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile("mutation")


def collect(tests: Sequence[str], work: Callable[[list[pytest.Item]], None]) -> None:
    """Collect `tests` in this process, and call `work` with them.

    Raises:
        RuntimeError: they cannot be collected.
    """
    status = pytest.main([*_OPTIONS, *tests], plugins=[Session(work)])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise RuntimeError(f"the tests cannot be collected: {status}")


def in_child(work: Callable[[], None]) -> None:
    """Do `work` in a child of this process, and wait for it.

    Raises:
        RuntimeError: it failed.
    """
    pid = os.fork()
    if not pid:
        _work_and_leave(work)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError("see above")


def _work_and_leave(work: Callable[[], None]) -> NoReturn:
    status = BROKEN
    try:
        work()
        status = SURVIVED
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    finally:
        sys.stdout.flush()
        os._exit(status)
