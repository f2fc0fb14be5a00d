"""`memcube doctor`: what may be wrong on this machine."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from memcube_protocol.errors import EXIT_ERROR, EXIT_OK, MemcubeError

from memcube.cli.answer import Answer
from memcube.cli.command import command
from memcube.cli.options import open_client
from memcube.figures import bytes_text, count_text, made_text, table_text

if TYPE_CHECKING:
    from memcube.context import Context

_SKEW_S: Final = 300
_PARTS: Final = {
    "registry": ("litestar", "granian", "sqlmodel"),
    "torch": ("torch", "transformers", "peft"),
    "plaintext": ("qdrant_edge",),
    "proxy": ("httpx2", "starlette", "uvicorn"),
    "langchain": ("langchain_core",),
    "langgraph": ("langgraph",),
    "mcp": ("mcp",),
    "s3": ("boto3",),
    "hub": ("huggingface_hub",),
    "pkcs11": ("pkcs11",),
}


class Finding(NamedTuple):
    """One thing that was looked at: `ok`, `note` or `problem`, and what was found."""

    what: str
    state: str
    found: str
    hint: str | None = None


_UNKNOWN_TIME: Final = Finding("clock", "note", "not compared: no registry answers")


@command("doctor", "memcube doctor", "memcube doctor --json")
def doctor() -> Answer:
    """Check settings, local store, default registry, clock and optional packages.

    Nothing is changed. The exit code is 1 if there is a problem.
    """
    findings = _findings_of_user() + [_part(part, packages) for part, packages in _PARTS.items()]
    value = {"findings": [finding._asdict() for finding in findings]}
    rows = [(finding.state, finding.what, finding.found) for finding in findings]
    hints = [f"hint: {finding.hint}" for finding in findings if finding.hint]
    bad = any(finding.state == "problem" for finding in findings)
    return Answer(
        value, "\n".join([table_text(rows), *hints]), exit_code=EXIT_ERROR if bad else EXIT_OK
    )


def _findings_of_user() -> list[Finding]:
    """What the settings lead to; only that they are wrong where they are."""
    from memcube.settings import Settings

    try:
        Settings.load()
    except MemcubeError as error:
        return [Finding("settings", "problem", str(error), error.hint)]
    checks = (_settings, _store, _made, _keys, _registry)
    with open_client() as client:
        findings = [_looked_at(check, client.context) for check in checks]
        answers = findings[-1].state == "ok"
        return [*findings, _looked_at(_clock, client.context) if answers else _UNKNOWN_TIME]


def _looked_at(check: Callable[[Context], Finding], context: Context) -> Finding:
    try:
        return check(context)
    except MemcubeError as error:
        return Finding(check.__name__.strip("_"), "problem", str(error), error.hint)


def _settings(context: Context) -> Finding:
    settings = context.settings
    return Finding("settings", "ok", f"home {settings.home}, registry {settings.endpoint.url}")


def _store(context: Context) -> Finding:
    refs, damaged = context.store.refs(), context.store.damaged()
    held = f"{count_text(len({ref.digest for ref in refs}), 'cube')}, {bytes_text(context.store.disk_bytes())}"
    if damaged:
        return Finding(
            "store",
            "problem",
            f"{held}, {len(damaged)} damaged blobs, the first {damaged[0]}",
            "pull the cubes again: damaged blobs are replaced",
        )
    if not can_be_written(context.settings.home):
        hint = "check the permissions, or set MEMCUBE_HOME elsewhere"
        return Finding(
            "store", "problem", f"{held}, {context.settings.home} cannot be written", hint
        )
    return Finding("store", "ok", held)


def can_be_written(folder: Path) -> bool:
    """Whether this user may write in `folder`, or make it where it is not there yet."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _made(context: Context) -> Finding:
    from memcube.consuming.holdings import made_bytes

    taken = made_text(made_bytes(context))
    return Finding("made of cubes", "ok", taken or "nothing yet: mounts make indexes and the like")


def _keys(context: Context) -> Finding:
    entries = context.keys.entries()
    if not entries:
        return Finding("keys", "note", "none yet: the first push makes one")
    return Finding("keys", "ok", ", ".join(f"{e.name} ({e.protection})" for e in entries))


def _registry(context: Context) -> Finding:
    registry = context.registry("")
    registry.ping()
    return Finding("registry", "ok", f"{registry.endpoint.url} answers")


def _clock(context: Context) -> Finding:
    """Compare our clock with the `Date` of the registry: signatures are judged by time."""
    from memcube.http import Request

    registry = context.registry("")
    request = Request("GET", f"{registry.endpoint.url}/v2/")
    with registry.http.send(request, (200, 401, 404)) as response:
        said = response.headers.get("date")
    if not said:
        return Finding("clock", "note", "the registry does not tell the time")
    skew_s = abs((datetime.now(UTC) - parsedate_to_datetime(said)).total_seconds())
    if skew_s > _SKEW_S:
        return Finding(
            "clock",
            "problem",
            f"{skew_s:.0f} s away from the registry's",
            "set the clock of this machine: signatures are judged by it",
        )
    return Finding("clock", "ok", f"within {max(skew_s, 1):.0f} s of the registry's")


def _part(part: str, packages: tuple[str, ...]) -> Finding:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        install = f"pip install 'memcube[{part}]'"
        return Finding(f"memcube[{part}]", "note", f"lacks {', '.join(missing)}: {install}")
    return Finding(f"memcube[{part}]", "ok", "installed")
