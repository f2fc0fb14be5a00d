"""After each round: compares the journal with what is there, and remembers it for the next one."""

from __future__ import annotations

import hashlib
import http.client
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.repository import Repository

from chaos import registers, structure
from chaos.contents import digest_of
from chaos.evidence import Objects, State, look
from chaos.journal import Event, Outcome
from chaos.model import ABSENT
from chaos.plan import REPOSITORIES, Round
from chaos.registers import History, Register
from chaos.requests import Endpoints, fetched
from chaos.structure import Promise, Violation

SETTLE_S = 75.0
"""More than twice the lease of a job whose process was killed."""
_MISTAKE = re.compile(r"the server made a mistake|Traceback \(most recent call last\)")


@dataclass
class Checker:
    """Knows what was acknowledged so far. `before` is what the last check saw."""

    database: str
    objects: Objects
    endpoints: Endpoints
    before: dict[Register, str] = field(default_factory=dict)
    fragile: set[Register] = field(default_factory=set)
    """Written while the clock was wrong: for the collection they may be of any age."""
    promises: list[Promise] = field(default_factory=list)
    versions: dict[tuple[str, str], str] = field(default_factory=dict)
    hashed: set[str] = field(default_factory=set)
    log_size: int = 0
    compared: int = 0
    """Registers, bytes and promises that were looked at, over all checks."""
    _log_read: dict[Path, int] = field(default_factory=dict)

    def check(self, planned: Round, events: Sequence[Event]) -> list[Violation]:
        """What is wrong after a round whose journal is `events`."""
        state, history = look(self.database), registers.history_of(events)
        now = registers.observed(state, REPOSITORIES)
        may_vanish = self._may_vanish(planned, events, history, state, now)
        self.promises += _promises(events)
        new = set(state.blobs) - self.hashed
        found = [
            *registers.impossible_states(self.before, history, now, may_vanish),
            *registers.stale_reads(self.before, history),
            *registers.moved_versions(self.versions, events, state),
            *registers.lost_chunks(events),
            *registers.wrong_answers(events),
            *_unfinished(events, new),
            *structure.half_visible(state),
            *structure.miscounted(state),
            *structure.unsigned(state),
            *structure.bytes_of_blobs(state, self.objects, sorted(new)),
            *structure.log_is_whole(state, self.log_size, self.promises),
            *self._answers(state, history, now),
        ]
        self.compared += len({*self.before, *history.writes, *now}) + len(new) + len(self.promises)
        self.before, self.log_size, self.hashed = now, state.log[0], self.hashed | new
        return found

    def check_swept(self) -> list[Violation]:
        """What is wrong after everything that nothing refers to was collected."""
        state = self._settled()
        now = registers.observed(state, REPOSITORIES)
        alive = state.alive()
        named = {(one.repository, blob) for one in state.manifests.values() for blob in one.blobs}
        gone = {
            register
            for register in self.before
            if (register[0] == "manifest" and register[1:] not in alive)
            or (register[0] == "blob" and register[1:] not in named)
        }
        found = [
            *registers.impossible_states(self.before, History(), now, gone),
            *structure.half_visible(state),
            *structure.miscounted(state),
            *structure.bytes_of_blobs(state, self.objects, sorted(state.blobs)),
            *structure.leftovers(state, self.objects),
        ]
        self.before = now
        return found

    def _settled(self) -> State:
        """The state once the registry has done what it had to do; of a job that is never done, at last."""
        deadline = time.monotonic() + SETTLE_S
        while (state := look(self.database)).due and time.monotonic() < deadline:
            time.sleep(0.2)
        return state

    def check_server_logs(self, logs: Iterable[Path]) -> list[Violation]:
        """Mistakes that servers wrote into their logs since the last check."""
        found = []
        for path in logs:
            text = path.read_text("utf-8", "replace") if path.exists() else ""
            fresh = text[self._log_read.get(path, 0) :]
            self._log_read[path] = len(text)
            for line in fresh.splitlines():
                if _MISTAKE.search(line):
                    found.append(Violation("mistake in the server's log", line[-1500:]))
        return found

    def _may_vanish(
        self,
        planned: Round,
        events: Sequence[Event],
        history: History,
        state: State,
        now: dict[Register, str],
    ) -> set[Register]:
        """Registers that garbage collection may have emptied."""
        if planned.moves_clock:
            self.fragile |= set(history.writes)
        elif not planned.may_collect:
            self.fragile -= {
                register
                for register, writes in history.writes.items()
                if any(write.is_certain for write in writes)
            }
        collectable = {*self.before, *history.writes} if planned.may_collect else self.fragile
        protected = _attached(events, self.before)
        # What is alive has to be there anyhow: structure.half_visible looks.
        return {
            register
            for register in collectable
            if register[0] != "tag" and register not in protected and register not in now
        }

    def _answers(
        self, state: State, history: History, now: dict[Register, str]
    ) -> Iterator[Violation]:
        """What the HTTP API says of every register of this round; it must be what the rows say."""
        for number, register in enumerate(sorted(history.writes)):
            kind, name, key = register
            repository = self.endpoints.repository(name, number)
            wanted = now.get(register, ABSENT)
            shown = _shown(repository, kind, key)
            if shown != wanted:
                what = f"{name} {key} is {shown or 'not there'} over HTTP, {wanted or 'no'} row"
                yield Violation(f"{kind} over HTTP", what)
        for name in REPOSITORIES:
            listed = set(self.endpoints.repository(name, 0).tags())
            if listed != {tag for kind, held, tag in now if (kind, held) == ("tag", name)}:
                yield Violation("list of tags", name)
        yield from self._log_answers(state)

    def _log_answers(self, state: State) -> Iterator[Violation]:
        wire = self.endpoints.repository(REPOSITORIES[0], 0).wire
        key = wire.get("/.well-known/memcube.json").json()["features"]["log"]["key"]
        note = wire.get("/log/checkpoint").body.decode()
        if state.log[0]:
            yield from structure.checkpoint_is_signed(note, key, state)


def _shown(repository: Repository, kind: str, key: str) -> str:
    """What a client gets: the digest of the bytes, or nothing."""
    try:
        reply = fetched(repository, key) if kind == "blob" else repository.get_manifest(key)
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({error!r})"
    if reply.status == 404:
        return ABSENT
    return digest_of(reply.body) if reply.status == 200 else f"status {reply.status}"


def _promises(events: Iterable[Event]) -> list[Promise]:
    return [
        Promise(
            leaf=event.value.removeprefix("sha256:"),
            index=event.more["index"],
            size=event.more["size"],
            root=event.more["root"],
            hashes=tuple(event.more["hashes"]),
        )
        for event in events
        if event.operation == "log entry" and event.outcome is Outcome.ACKNOWLEDGED
    ]


def _attached(events: Iterable[Event], before: dict[Register, str]) -> set[Register]:
    """Notes whose subject was kept by a tag before they were acknowledged: they live as long as it."""
    kept = {
        (name, value): float("-inf")
        for (kind, name, tag), value in before.items()
        if kind == "tag" and tag.startswith("keep-")
    }
    notes = []
    for event in events:
        if event.operation != "put manifest" or event.outcome is not Outcome.ACKNOWLEDGED:
            continue
        if str(event.more.get("tag")).startswith("keep-"):
            kept.setdefault((event.repository, event.key), event.end)
        if event.more.get("is_kept"):
            notes.append(event)
    return {
        ("manifest", note.repository, note.key)
        for note in notes
        if kept.get((note.repository, note.more["subject"]), float("inf")) < note.start
    }


def _unfinished(events: Sequence[Event], new: set[str]) -> Iterator[Violation]:
    """Blobs that are `new` although nobody finished their uploads."""
    finished = {
        event.key
        for event in events
        if event.operation in ("put blob", "mount blob") and event.outcome is not Outcome.REFUSED
    }
    for event in events:
        is_part = event.operation in ("hang up", "send chunk", "send stream")
        if is_part and event.key in new - finished:
            yield Violation("upload visible as blob", f"{event.repository} {event.key}")


def untrue_files(paths: Iterable[Path]) -> Iterator[Violation]:
    """Blobs in clients' stores whose bytes are not those of their names."""
    for path in paths:
        algorithm = path.parent.parent.name
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, algorithm).hexdigest()
        if actual != path.name:
            yield Violation("untrue blob in a client's store", str(path))
