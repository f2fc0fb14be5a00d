"""The figures in docs/chaos.md, from the results of runs: `PYTHONPATH=tests python -m chaos.report`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos.journal import Outcome
from chaos.plan import Fault

PAGE = Path(__file__).parents[2] / "docs" / "chaos.md"
RESULTS = Path(__file__).parent / "results"
OPENING, CLOSING = "<!-- runs -->\n", "<!-- /runs -->\n"
_KILLS = {str(fault) for fault in Fault if fault.is_kill}

Run = Mapping[str, Any]


def results() -> list[Run]:
    """The kept results, by name."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))]


def figures(runs: Sequence[Run]) -> str:
    """The part of the page between its marks."""
    return "\n".join([_overview(runs), _strikes(runs), _operations(runs), _machine(runs)])


def with_figures(page: str, runs: Sequence[Run]) -> str:
    """`page` with its figures written anew."""
    before, _, rest = page.partition(OPENING)
    _, closing, after = rest.partition(CLOSING)
    assert closing, "the page has lost its marks"
    return before + OPENING + "\n" + figures(runs) + "\n" + CLOSING + after


def kills_of(run: Run) -> int:
    """How many processes, or groups of them, a run killed."""
    return sum(count for name, count in run["strikes"].items() if name in _KILLS)


def _overview(runs: Sequence[Run]) -> str:
    rows = [
        (
            run["profile"],
            f"`{run['seed']}`",
            len(run["rounds"]),
            f"{run['wallSeconds'] / 60:.0f}",
            kills_of(run),
            run["registryStarts"],
            sum(sum(each.values()) for each in run["operations"].values()),
            run["compared"],
            run["logEntries"],
            len(run["violations"]),
        )
        for run in runs
    ]
    return _table(
        (
            *("profile", "seed", "rounds", "minutes", "kills", "starts of a registry"),
            *("operations", "comparisons", "log entries", "violations"),
        ),
        rows,
    )


def _strikes(runs: Sequence[Run]) -> str:
    rows = [
        (fault, "yes" if fault.is_kill else "no", *(run["strikes"].get(fault, 0) for run in runs))
        for fault in Fault
    ]
    total = ("all kills", "", *(kills_of(run) for run in runs))
    return _table(("fault", "a kill", *map(_title, runs)), [*rows, total])


def _operations(runs: Sequence[Run]) -> str:
    names = sorted({name for run in runs for name in run["operations"]} - {"strike"})
    rows = []
    for name in names:
        counts = [run["operations"].get(name, {}) for run in runs]
        rows.append((name, *(" / ".join(str(each.get(o, 0)) for o in Outcome) for each in counts)))
    heads = [f"{_title(run)}: {' / '.join(Outcome)}" for run in runs]
    return _table(("operation", *heads), rows)


def _title(run: Run) -> str:
    return f"{run['profile']} `{run['seed']}`"


def _machine(runs: Sequence[Run]) -> str:
    described = {", ".join(f"{k} {v}" for k, v in run["machine"].items()) for run in runs}
    return "Machine: " + "; ".join(sorted(described)) + "."


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(map(str, row))} |" for row in (columns, *rows)]
    lines.insert(1, f"|{'---|' * len(columns)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(with_figures(PAGE.read_text("utf-8"), results()), "utf-8")
