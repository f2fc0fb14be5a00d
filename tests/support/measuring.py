"""Wall time, CPU time and memory of processes, and the tables that benchmarks print."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
RESULTS = Path(__file__).parents[1] / "bench" / "results"
AS_INSTALLED = {"MEMCUBE_REGISTRY_WORKERS": "0"}
"""As many processes as cores: what an operator gets who sets nothing."""
GIB = 1 << 30
MIB = 1 << 20


def descendants(pid: int) -> list[int]:
    """`pid` and all processes below it."""
    found = [pid]
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += descendants(int(child))
    except (FileNotFoundError, ProcessLookupError):
        pass
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time so far of `pid` and everything below it, ended children included."""
    total = 0
    for each in descendants(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # utime, stime, cutime, cstime: fields 14 to 17, and two were cut off
        counted = fields[11:15] if each == pid else fields[11:13]
        total += sum(map(int, counted))
    return total / TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Resident memory of `pid` and everything below it."""
    total = 0
    for each in descendants(pid):
        try:
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))
    return total


@dataclass(frozen=True)
class Cost:
    """What one run took. Times in seconds, memory in bytes."""

    wall_s: float
    client_cpu_s: float
    server_cpu_s: float
    peak_bytes: int = 0

    @property
    def total_cpu_s(self) -> float:
        return self.client_cpu_s + self.server_cpu_s


def measure(
    arguments: Sequence[str],
    *,
    server: int | Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> Cost:
    """Cost of a command that must succeed; `server` is the process that serves it, or several."""
    servers = (server,) if isinstance(server, int) else server
    server_before = sum(map(cpu_seconds, servers))
    usage_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    process = subprocess.Popen(
        list(arguments),
        env=env,
        cwd=cwd,
        text=True,
        stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], resident_bytes(process.pid))

    watching = threading.Thread(target=watch)
    watching.start()
    _, errors = process.communicate(stdin)
    wall_s = time.perf_counter() - started
    done.set()
    watching.join()
    assert process.returncode == 0, f"{arguments}: {errors[-2000:]}"
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    client = (usage.ru_utime + usage.ru_stime) - (usage_before.ru_utime + usage_before.ru_stime)
    server_s = sum(map(cpu_seconds, servers)) - server_before
    return Cost(wall_s, client, server_s, peak[0])


def medians(costs: Iterable[Cost]) -> Cost:
    """The median of each figure on its own."""
    rows = [asdict(cost) for cost in costs]
    return Cost(**{name: median(row[name] for row in rows) for name in rows[0]})


def alternate(runs: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, Cost]:
    """Medians over `rounds`, each contestant once a round, so that noise hits all alike."""
    costs: dict[str, list[Cost]] = {name: [] for name in runs}
    for number in range(rounds):
        order = list(runs) if number % 2 == 0 else list(reversed(runs))
        for name in order:
            costs[name].append(runs[name]())
    return {name: medians(each) for name, each in costs.items()}


def write_random(path: Path, size_bytes: int) -> Path:
    """A file of random bytes."""
    with path.open("wb") as file:
        for start in range(0, size_bytes, 4 * MIB):
            file.write(os.urandom(min(4 * MIB, size_bytes - start)))
    return path


def report(name: str, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a Markdown table, keep it in tests/bench/results, and put it into docs/benchmarks.md."""
    shown = [[_cell(value) for value in row] for row in rows]
    lines = [f"| {' | '.join(map(_escaped, row))} |" for row in (columns, *shown)]
    lines.insert(1, f"|{'---|' * len(columns)}")
    table = "\n".join(lines)
    print(f"\n### {title}\n\n{table}")
    RESULTS.mkdir(exist_ok=True)
    document = {"title": title, "columns": list(columns), "rows": shown, "machine": machine()}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    quote(name, f"{title}.\n\n{table}")


def quote(name: str, text: str) -> None:
    """Put `text` between the marks of `name` in docs/benchmarks.md."""
    opening, closing = f"<!-- {name} -->", f"<!-- /{name} -->"
    document = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = document.partition(opening)
    _, closed, after = rest.partition(closing)
    assert closed, f"docs/benchmarks.md has no place for {name}"
    DOCUMENT.write_text(f"{before}{opening}\n{text}\n{closing}{after}", encoding="utf-8")


def _cell(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def _escaped(cell: str) -> str:
    """A bar would end the cell."""
    return cell.replace("|", r"\|")


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": str(os.cpu_count()),
        "memory": f"{memory / GIB:.0f} GiB",
        "system": platform.platform(terse=True),
        "python": sys.version.split()[0],
    }
