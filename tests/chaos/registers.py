"""From the journal to registers: which tags, manifests and blobs the clients wrote, and what they may hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from chaos.evidence import State
from chaos.journal import Event, Outcome
from chaos.model import ABSENT, Read, Write, impossible_reads, permitted
from chaos.structure import Violation

Register = tuple[str, str, str]
"""`tag`, `manifest` or `blob`; the repository; the tag or digest."""

_WRITES = {"put blob": "blob", "mount blob": "blob", "put manifest": "manifest"}
_DELETES = {"delete blob": "blob", "delete manifest": "manifest", "delete tag": "tag"}


@dataclass
class History:
    """The writes and reads of one round, by register."""

    writes: dict[Register, list[Write]] = field(default_factory=lambda: defaultdict(list))
    reads: dict[Register, list[Read]] = field(default_factory=lambda: defaultdict(list))
    removed_manifests: dict[str, list[Write]] = field(default_factory=lambda: defaultdict(list))
    """By repository: each takes away the tags that point to it."""

    def of(self, register: Register) -> list[Write]:
        """Everything that may have changed `register`."""
        kind, repository, _ = register
        more = self.removed_manifests.get(repository, []) if kind == "tag" else []
        return [*self.writes.get(register, []), *more]


def _written(event: Event) -> str | None:
    """The kind of register that `event` may have written: an announcement finds a blob, or an upload begins."""
    if event.operation == "announce upload":
        return None if event.more.get("state") == "open" else "blob"
    return _WRITES.get(event.operation)


def history_of(events: Iterable[Event]) -> History:
    """The registers' history in `events`, those of one round."""
    found = History()
    for event in events:
        if event.operation == "read tag" and event.outcome is Outcome.ACKNOWLEDGED:
            read = Read(event.value, event.start, event.end)
            found.reads["tag", event.repository, event.key].append(read)
        if event.outcome is Outcome.REFUSED:
            continue
        is_certain = event.outcome is Outcome.ACKNOWLEDGED
        # What was not answered may still happen until the round's last process is dead.
        end = event.end if is_certain else float("inf")
        if kind := _written(event):
            write = Write(event.key, event.start, end, is_certain)
            found.writes[kind, event.repository, event.key].append(write)
            if tag := event.more.get("tag"):
                found.writes["tag", event.repository, tag].append(write)
        elif kind := _DELETES.get(event.operation):
            write = Write(ABSENT, event.start, end, is_certain)
            found.writes[kind, event.repository, event.key].append(write)
            if kind == "manifest":
                over = replace(write, only_over=event.key)
                found.removed_manifests[event.repository].append(over)
    return found


def observed(state: State, repositories: Iterable[str]) -> dict[Register, str]:
    """What the registers of `repositories` hold."""
    names = set(repositories)
    found: dict[Register, str] = {}
    for (repository, tag), digest in state.tags.items():
        found["tag", repository, tag] = digest
    for repository, digest in state.manifests:
        found["manifest", repository, digest] = digest
    for repository, digest in state.links:
        found["blob", repository, digest] = digest
    return {register: value for register, value in found.items() if register[1] in names}


def impossible_states(
    before: Mapping[Register, str],
    history: History,
    now: Mapping[Register, str],
    may_vanish: frozenset[Register] | set[Register],
) -> Iterator[Violation]:
    """Registers whose value nothing explains. Those of `may_vanish` may also have been collected."""
    for register in sorted({*before, *history.writes, *now}):
        values = permitted(before.get(register, ABSENT), history.of(register))
        value = now.get(register, ABSENT)
        if value in values or (value == ABSENT and register in may_vanish):
            continue
        expected = " or ".join(sorted(each or "nothing" for each in values))
        yield Violation(
            f"acknowledged {register[0]} lost" if value == ABSENT else f"impossible {register[0]}",
            f"{register[1]} {register[2]} is {value or 'not there'}, not {expected}",
        )


def stale_reads(before: Mapping[Register, str], history: History) -> Iterator[Violation]:
    """Tags that were seen to go back."""
    for register, reads in history.reads.items():
        initial = before.get(register, ABSENT)
        for read, values in impossible_reads(initial, history.of(register), reads):
            yield Violation(
                "impossible read",
                f"{register[1]}:{register[2]} was {read.value or 'nothing'} from {read.start:.3f} "
                f"to {read.end:.3f}, not {sorted(values)}",
            )


def moved_versions(
    versions: dict[tuple[str, str], str], events: Iterable[Event], state: State
) -> Iterator[Violation]:
    """Versions that name another manifest than once before; `versions` learns new ones."""
    seen = [
        (event.repository, event.more["tag"], event.key)
        for event in events
        if event.operation == "put manifest"
        and event.outcome is Outcome.ACKNOWLEDGED
        and str(event.more.get("tag")).startswith("1.")
    ]
    seen += [(name, tag, digest) for (name, tag), digest in state.tags.items() if tag[:2] == "1."]
    for repository, tag, digest in seen:
        if tag.count(".") == 2 and versions.setdefault((repository, tag), digest) != digest:
            yield Violation("version moved", f"{repository}:{tag} became {digest}")


def lost_chunks(events: Iterable[Event]) -> Iterator[Violation]:
    """Uploads that hold fewer bytes than were acknowledged."""
    acknowledged: dict[str, int] = {}
    for event in events:
        upload = str(event.more.get("upload", ""))
        if event.outcome is not Outcome.ACKNOWLEDGED:
            continue
        if event.operation == "send chunk":
            acknowledged[upload] = int(event.more["stop"])
        elif event.operation == "ask upload" and event.more["held"] < acknowledged.get(upload, 0):
            lost = f"{upload} holds {event.more['held']} of {acknowledged[upload]} bytes"
            yield Violation("acknowledged bytes lost", lost)


def wrong_answers(events: Iterable[Event]) -> Iterator[Violation]:
    """Bytes that are not those of their digest, and answers that only a mistake explains."""
    for event in events:
        is_read = event.operation in ("read blob", "read range")
        if is_read and event.outcome is Outcome.ACKNOWLEDGED and event.value != event.key:
            yield Violation("untrue answer", f"{event.repository} {event.key} was {event.value}")
        if event.status >= 500 and event.status not in (503, 507):
            yield Violation(
                f"status {event.status}", f"{event.operation}: {event.more.get('answer')}"
            )
