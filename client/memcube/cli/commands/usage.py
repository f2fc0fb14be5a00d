"""`memcube usage`: which memories are used on this machine, and how much."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.figures import count_text, table_text

if TYPE_CHECKING:
    from memcube.settings import Settings
    from memcube.usage import Answered, CubeUse, RecordUse, Sidecar, Version


@command(
    "usage",
    "memcube usage",
    "memcube usage alice/notes --json",
    "memcube usage alice/notes --answers",
    "memcube usage --forget",
)
@click.argument("reference", required=False)
@click.option(
    "--limit", default=20, show_default=True, type=click.IntRange(1, 100_000), help="So many lines."
)
@click.option(
    "--answers", "with_answers", is_flag=True, help="Which records the last answers used."
)
@click.option("--forget", is_flag=True, help="Forget what was counted: of REFERENCE, or all.")
def usage(reference: str | None, limit: int, with_answers: bool, forget: bool) -> Answer:
    """Show how often the memories of cubes were used on this machine, and when last.

    With REFERENCE, its versions and its records, the most used first. Only ids are kept, no text
    and no question, and nothing is sent anywhere. `usage = false` in config.toml turns counting
    off.
    """
    if with_answers and (reference is None or forget):
        raise click.UsageError("--answers shows those of one REFERENCE")
    from memcube.settings import Settings
    from memcube.usage import Sidecar

    settings = Settings.load()
    with closing(Sidecar.of(settings)) as sidecar:
        if reference is None:
            return _forgotten("all cubes", sidecar.forget()) if forget else _all(settings, sidecar)
        name = _name(settings, sidecar, reference)
        if forget:
            return _forgotten(name, sidecar.forget(name))
        return _one(sidecar, name, limit, with_answers)


def _name(settings: Settings, sidecar: Sidecar, reference: str) -> str:
    """What the sidecar calls the cube: at its registry, or packed here."""
    from memcube_protocol.reference import Reference

    from memcube.trust import location_of

    asked = Reference.parse(reference)
    there = location_of(asked.with_host(settings.endpoint_of(asked.host).host))
    is_packed = not asked.host and sidecar.cube(there) is None and sidecar.cube(asked.name)
    return asked.name if is_packed else there


def _forgotten(what: str, changed: bool) -> Answer:
    text = f"Forgot how {what} were used" if changed else "There was nothing to forget"
    return Answer({"forgotten": changed}, text)


def _all(settings: Settings, sidecar: Sidecar) -> Answer:
    cubes, now = sidecar.cubes(), datetime.now(UTC)
    value = {"counted": settings.usage, "cubes": [_cube_value(cube, now) for cube in cubes]}
    rows = [["CUBE", "MOUNTS", "FOUND", "ANSWERS", "RECORDS", "LAST USED"]]
    for cube in cubes:
        counts = cube.mounts, cube.accesses, cube.answers, cube.records
        rows.append([cube.cube, *map(str, counts), _day(cube)])
    lines = [table_text(rows)] if cubes else ["No cube was used on this machine yet."]
    lines += ["Nothing is counted: usage = false"] * (not settings.usage)
    return Answer(value, "\n".join(lines))


def _one(sidecar: Sidecar, name: str, limit: int, with_answers: bool) -> Answer:
    cube, versions = sidecar.cube(name), sidecar.versions(name)
    records, now = sidecar.records(name, limit=limit), datetime.now(UTC)
    answers = sidecar.answers(name, limit=limit) if with_answers else ()
    value = {
        **(_cube_value(cube, now) if cube else {"cube": name, "mounts": 0}),
        "versions": [_version_value(version) for version in versions],
        "records": [_record_value(record, now) for record in records],
        **({"answers": list(map(_answer_value, answers))} if with_answers else {}),
    }
    if cube is None:
        return Answer(value, f"{name} was not used on this machine yet.")
    mounts, answered = count_text(cube.mounts, "mount"), count_text(cube.answers, "answer")
    found = f"{count_text(cube.accesses, 'record')} found"
    lines = [f"{name}: {mounts}, {found}, {answered}, last used {_day(cube)}"]
    lines += [
        f"  {version.digest[:19]}… {count_text(version.mounts, 'mount')}, "
        f"since {version.first_mounted_at:%Y-%m-%d}"
        for version in versions
    ]
    return Answer(value, "\n".join([*lines, *_record_lines(records), *_answer_lines(answers)]))


def _record_lines(records: Sequence[RecordUse]) -> list[str]:
    if not records:
        return []
    rows = [("RECORD", "FOUND", "ANSWERS", "SCORE", "LAST USED")]
    rows += [
        (one.record, str(one.accesses), str(one.answers), f"{one.score:.2f}", _day(one))
        for one in records
    ]
    return ["", table_text(rows)]


def _answer_lines(answers: Sequence[Answered]) -> list[str]:
    if not answers:
        return []
    rows = [
        (f"#{one.number}", f"{one.at:%Y-%m-%d %H:%M}", ", ".join(use.record for use in one.used))
        for one in answers
    ]
    return ["", table_text([("ANSWER", "AT", "USED"), *rows])]


def _cube_value(cube: CubeUse, now: datetime) -> dict[str, Any]:
    return {
        "cube": cube.cube,
        "mounts": cube.mounts,
        "accesses": cube.accesses,
        "answers": cube.answers,
        "recordsUsed": cube.records,
        "lastUsedAt": cube.last_used_at.isoformat(),
        "strength": round(cube.strength(now), 4),
    }


def _version_value(version: Version) -> dict[str, Any]:
    return {
        "digest": version.digest,
        "mounts": version.mounts,
        "firstMountedAt": version.first_mounted_at.isoformat(),
        "lastMountedAt": version.last_mounted_at.isoformat(),
    }


def _record_value(record: RecordUse, now: datetime) -> dict[str, Any]:
    return {
        "record": record.record,
        "accesses": record.accesses,
        "answers": record.answers,
        "score": round(record.score, 4),
        "lastUsedAt": record.last_used_at.isoformat(),
        "strength": round(record.strength(now), 4),
    }


def _answer_value(answer: Answered) -> dict[str, Any]:
    used = [{"cube": use.cube, "record": use.record, "score": use.score} for use in answer.used]
    return {"number": answer.number, "at": answer.at.isoformat(), "used": used}


def _day(use: CubeUse | RecordUse) -> str:
    return f"{use.last_used_at:%Y-%m-%d}"
