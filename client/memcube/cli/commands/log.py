"""`memcube log`: the transparency log, for those who sign and those who doubt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from memcube_protocol.errors import EXIT_OK, EXIT_TRUST, MemcubeError, NotFoundError

from memcube.cli.answer import Answer
from memcube.cli.command import MemcubeGroup, command
from memcube.cli.options import open_client
from memcube.figures import bytes_text, count_text

if TYPE_CHECKING:
    from memcube.log.monitoring import Sighting


@click.group("log", cls=MemcubeGroup)
def log() -> None:
    """Watch the transparency log of a registry.

    Every pull checks that the log only grows. These commands look at its entries themselves.
    """


@command("monitor", "memcube log monitor alice", "memcube log monitor alice --since 1200 --json")
@click.argument("namespace")
@click.option("--host", default="", help="Registry; the default one without.")
@click.option(
    "--since",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="First entry to look at.",
)
def monitor(namespace: str, host: str, since: int) -> Answer:
    """Show what is signed in the name of NAMESPACE, which is yours.

    Next time, run it with --since and the number that it ends with. The exit code is 13 if a key
    signed that is not known here: not one of this machine's, pinned, or in charge of the namespace.
    """
    from memcube_protocol.reference import Reference

    from memcube.log import monitoring

    with open_client() as client:
        place = Reference(host or client.context.settings.endpoint.host, namespace)
        seen = monitoring.monitor(client.context, place, since=since)
    size, read = seen.audited.checkpoint.size, seen.audited.fetched_bytes
    value = {
        "origin": seen.audited.checkpoint.origin,
        "size": size,
        "fetchedBytes": read,
        "entries": [_value(sighting) for sighting in seen.sightings],
        "strangers": len(seen.strangers),
    }
    lines = [_line(sighting) for sighting in seen.sightings]
    lines.append(
        f"{count_text(len(seen.sightings), 'statement')} of {size} in the log, "
        f"{len(seen.strangers)} by unknown keys; {bytes_text(read)} read; go on with --since {size}"
    )
    code = EXIT_TRUST if seen.strangers else EXIT_OK
    return Answer(value, "\n".join(lines), str(size), code)


@command("audit", "memcube log audit", "memcube log audit registry.example")
@click.argument("host", default="")
def audit(host: str) -> Answer:
    """Fetch every entry of the log of HOST and recompute its tree."""
    from memcube.log import monitoring

    with open_client() as client:
        place = host or client.context.settings.endpoint.host
        audited = monitoring.audit(client.context, place)
    state = audited.checkpoint
    value = {
        "origin": state.origin,
        "size": state.size,
        "root": state.root.hex(),
        "fetchedBytes": audited.fetched_bytes,
    }
    text = (
        f"{state.origin}: {state.size} entries are those that its checkpoint commits to\n"
        f"root {state.root.hex()}, {bytes_text(audited.fetched_bytes)} read"
    )
    return Answer(value, text, state.root.hex())


def _value(sighting: Sighting) -> dict[str, Any]:
    said = sighting.said
    return {
        "index": sighting.index,
        "keyId": sighting.key_id,
        "known": sighting.known,
        "predicateType": said.predicate_type if said else None,
        "name": said.name if said else None,
        "subject": str(said.subject) if said else None,
        "version": said.predicate.get("version") if said else None,
    }


def _line(sighting: Sighting) -> str:
    who = "known  " if sighting.known else "UNKNOWN"
    said = sighting.said
    what = f"{said.name} {said.predicate_type}" if said else "a statement that is not shown"
    version = f" {said.predicate['version']}" if said and "version" in said.predicate else ""
    return f"{sighting.index:>9}  {who} key {sighting.key_id}: {what}{version}"


@command(
    "checkpoint", "memcube log checkpoint", "memcube log checkpoint registry.example -o seen.note"
)
@click.argument("host", default="")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.")
def checkpoint(host: str, output: Path | None) -> Answer:
    """Show what this machine has seen of the log of HOST at most: its newest signed checkpoint.

    Hand it to others: memcube log compare tells them whether the log shows them the same history.
    """
    from memcube.log.watching import follow
    from memcube.store.files import replace_file

    with open_client() as client:
        place = host or client.context.settings.endpoint.host
        known = client.context.logs.load().of(place.lower()) or follow(client.context, place)
    if known is None:
        raise _without_log(place)
    if output:
        replace_file(output, known.note.text.encode())
    state = known.state
    value = {
        "origin": state.origin,
        "size": state.size,
        "root": state.root.hex(),
        "checkpoint": known.note.text,
        "path": str(output) if output else None,
    }
    text = f"{output}: {state.origin}, {state.size} entries" if output else known.note.text[:-1]
    return Answer(value, text, state.root.hex())


@command(
    "compare",
    "memcube log compare seen.note",
    "memcube log compare notes.memproof",
    "memcube log compare https://friend.example/seen.note --output fork.json",
)
@click.argument("source")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Where to write the proof of a fork; below the settings' folder without.",
)
def compare(source: str, output: Path | None) -> Answer:
    """Check that a log has shown others the same history as this machine.

    SOURCE is a file or URL from elsewhere: a checkpoint (memcube log checkpoint), a proof file, or
    the proof of a fork that somebody else has kept. The exit code is 13 if the log signed two
    histories: then both signatures are written to a file that proves it to everybody who knows the
    log's key.
    """
    from memcube.log import comparing, forks

    with open_client() as client:
        found = comparing.compare(client.context, source)
        path = forks.keep(client.context, found.fork, output) if found.fork else None
    sizes = ", ".join(str(state.size) for state in found.theirs)
    value = {
        "origin": found.ours.origin,
        "host": found.host,
        "size": found.ours.size,
        "compared": [state.size for state in found.theirs],
        "consistent": found.fork is None,
        "proof": str(path) if path else None,
    }
    if found.fork is None:
        text = f"{found.ours.origin}: one history, compared at {sizes} of {found.ours.size} entries"
        return Answer(value, text, str(found.ours.size))
    one, other = found.fork.smaller.checkpoint.size, found.fork.larger.checkpoint.size
    text = (
        f"{found.ours.origin} HAS SIGNED TWO HISTORIES (at {one} and {other} entries)\n"
        f"{path} proves it: do not use the log, and show the file to others"
    )
    return Answer(value, text, str(path), EXIT_TRUST)


def _without_log(host: str) -> MemcubeError:
    return NotFoundError(f"{host} keeps no transparency log", hint="name another registry")


for one in (monitor, audit, checkpoint, compare):
    log.add_command(one)
