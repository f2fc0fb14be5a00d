"""The adapters that are mounted on one model, under names for people: list, switch, combine, route.

memory.adapters.switch("law")                       # this one alone
memory.adapters.switch({"law": 0.7, "style": 0.3})  # both, each with a factor on its effect
memory.adapters.combine({"law": 0.7, "style": 0.3}) # one new adapter made of both
memory.adapters.route("Is a verbal contract valid?", limit=2)
"""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from memcube_protocol.errors import ConflictError, NotFoundError
from memcube_protocol.parametric import Level, Verdict
from memcube_protocol.values import frozen

from memcube.memories.parametric.combine import LINEAR, Part, combine
from memcube.memories.parametric.mount import MountedLora
from memcube.memories.parametric.routing import Choice, Embedder, choose
from memcube.memories.turns import changing


@frozen
class AdapterState:
    """One mounted adapter: what it says of itself, and the factor on its effect now; 0 if not in use."""

    name: str
    description: str
    rank: int
    modules: int
    level: Level
    gate: float


class Adapters:
    """The adapters of one mounted memory. Adapters that others have put on the model stay as they are.

    They are the model's: a switch waits for the questions that are under way, and holds for all that
    come after, whichever thread asks. A KV cache belongs to the adapters that were active when it was
    made: after a switch to others it refuses to be used.
    """

    def __init__(self) -> None:
        self._mounted: dict[str, MountedLora] = {}
        self._descriptions: dict[str, str] = {}

    def add(self, name: str, mounted: MountedLora, description: str = "", *, cube: str = "") -> str:
        """Take `mounted` in under `name`, and give the name back; `route` finds it by `description`.

        Where another has the name, `cube#name` takes its place.

        Raises:
            ConflictError: another adapter has this name as well.
        """
        if name in self._mounted and cube:
            name = f"{cube}#{name}"
        if name in self._mounted:
            raise ConflictError(
                f"an adapter {name!r} is mounted already", hint="give it another name"
            )
        self._mounted[name] = mounted
        self._descriptions[name] = description
        return name

    def list(self) -> tuple[AdapterState, ...]:
        """The adapters in the order of their mounting."""
        return tuple(
            AdapterState(
                name,
                self._descriptions[name],
                mounted.adapter.config.rank,
                len(mounted.adapter.modules),
                mounted.verdict.level,
                mounted.stack.gates.get(mounted.name, 0.0),
            )
            for name, mounted in self._mounted.items()
        )

    def switch(self, chosen: str | Iterable[str] | Mapping[str, float]) -> None:
        """Activate the `chosen` adapters only, each with its factor (1 unless given); none: the base model alone.

        Raises:
            NotFoundError: there is no adapter of that name.
            UnsupportedError: a factor on an adapter that is not two plain factors a module.
            ConflictError: more than one of them has biases, or this very thread is asking the model.
            IntegrityError: the file of a chosen one was written into after it was checked.
        """
        wanted = _gates_of(chosen)
        stack = next((mounted.stack for mounted in self._mounted.values()), None)
        with changing(stack and stack.model):
            # Only now: others may have changed the adapters while this one waited.
            gates = {self._usable(name).name: gate for name, gate in wanted.items()}
            if stack is not None:
                ours = {mounted.name for mounted in self._mounted.values()}
                others = {name: gate for name, gate in stack.gates.items() if name not in ours}
                stack.switch({**others, **gates})

    def combine(
        self, weights: Mapping[str, float], how: str = LINEAR, *, name: str | None = None
    ) -> str:
        """Mount one adapter made of several, switch to it, and give its name; see `combine`.

        The same combination under the same name again is only switched to.

        Raises:
            NotFoundError, IntegrityError: see `switch`.
            InvalidError, UnsupportedError, IncompatibleError, LimitExceededError: cannot be combined.
            ConflictError: another adapter has this name.
        """
        parts = [
            Part((mounted := self._usable(one)).adapter, mounted.tensors, weight)
            for one, weight in weights.items()
        ]
        label = name or "+".join(weights)
        adapter, tensors = combine(parts, how)
        inner = self._inner_name(weights, how, label)
        known = self._mounted.get(label)
        if known is None or known.name != inner:
            sources = [self._mounted[one] for one in weights]
            combined = MountedLora(adapter, _weakest(sources), inner, tensors, sources[0].stack)
            about = "\n".join(self._descriptions[one] for one in weights)
            combined.mount()
            try:
                self.add(label, combined, about)
            except BaseException:
                combined.unmount()
                raise
        self.switch(label)
        return label

    def route(
        self, query: str, *, limit: int = 1, embed: Embedder | None = None
    ) -> tuple[Choice, ...]:
        """Switch to the adapters that `query` is for, by their descriptions, each with its share as factor.

        One is used whole. Where nothing speaks for any, the base answers alone. Combinations do not
        take part: their parts do.

        Raises:
            InvalidError: see `choose`.
            UnsupportedError, ConflictError, IntegrityError: see `switch`.
        """
        descriptions = {
            name: self._descriptions[name] for name, one in self._mounted.items() if one.is_file
        }
        chosen = choose(query, descriptions, limit=limit, embed=embed)
        self.switch({choice.name: choice.share for choice in chosen})
        return chosen

    def remove(self, name: str) -> None:
        """Unmount one of them, such as a combination that is not wanted any more.

        Raises:
            NotFoundError: there is no adapter of that name.
        """
        mounted = self._mounted.get(name)
        if mounted is None:
            raise self._unknown(name)
        mounted.unmount()
        del self._mounted[name], self._descriptions[name]

    def require_unchanged(self) -> None:
        """Refuse a question to those in use where the file of one was written into after it was checked.

        Raises:
            IntegrityError: it was: pages that were not read yet would change with it, or be gone.
        """
        for mounted in self._mounted.values():
            if mounted.name in mounted.stack.gates:
                mounted.require_usable()

    def close(self) -> None:
        """Unmount all of them, the last one first."""
        while self._mounted:
            _, mounted = self._mounted.popitem()
            mounted.unmount()

    def __len__(self) -> int:
        return len(self._mounted)

    def _usable(self, name: str) -> MountedLora:
        mounted = self._mounted.get(name)
        if mounted is None:
            raise self._unknown(name)
        mounted.require_usable()
        return mounted

    def _unknown(self, name: str) -> NotFoundError:
        return NotFoundError(
            f"no adapter {name[:80]!r} is mounted",
            hint=f"there are: {', '.join(self._mounted) or 'none'}",
        )

    def _inner_name(self, weights: Mapping[str, float], how: str, label: str) -> str:
        told = [(self._mounted[one].name, weight) for one, weight in weights.items()]
        return f"memcube_{hashlib.sha256(repr((told, how, label)).encode()).hexdigest()[:16]}"


def _gates_of(chosen: str | Iterable[str] | Mapping[str, float]) -> dict[str, float]:
    if isinstance(chosen, Mapping):
        return dict(chosen)
    return dict.fromkeys([chosen] if isinstance(chosen, str) else chosen, 1.0)


def _weakest(sources: builtins.list[MountedLora]) -> Verdict:
    """The verdict of the source whose base is least sure."""
    order: Any = (Level.UNKNOWN, Level.DECLARED, Level.EXACT)
    return min((source.verdict for source in sources), key=lambda each: order.index(each.level))
