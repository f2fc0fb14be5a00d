"""What mounted cubes add to the prompts of a proxy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from memcube_protocol.config import PLAINTEXT
from memcube_protocol.errors import NotFoundError

from memcube import rules
from memcube.context import NORMAL_TRUST, Trust
from memcube.proxy.rendering import Addition, prefix_of
from memcube.source_texts import source_texts

if TYPE_CHECKING:
    from memcube.client import Client

_RECORDS = ("kind=plaintext",)


@contextmanager
def mounted(
    client: Client,
    references: Sequence[str],
    budget_tokens: int,
    *,
    leaves_to: tuple[str, ...] = (),
    trust: Trust = NORMAL_TRUST,
) -> Iterator[Addition]:
    """What the cubes at `references` add; records in at most `budget_tokens` tokens for each request.

    `leaves_to` names the hosts that prompts go to; this machine is none.

    Raises:
        RuleRefusedError: a cube's own rules keep it from leaving this machine, or from this use.
        NotFoundError: a cube has neither records nor the source text of a KV memory.
        MemcubeError: whatever opening and mounting a cube raises.
    """
    texts: list[str] = []
    with_records: list[str] = []
    for reference in references:
        verified = client.open(reference, filters=_RECORDS, trust=trust)
        rules.require_mount(client.context, verified, leaves_to=leaves_to)
        found = list(source_texts(client.context, verified))
        if any(memory.kind == PLAINTEXT for memory in verified.cube.config.memories):
            with_records.append(reference)
        elif not found:
            raise NotFoundError(
                f"{reference} has neither records nor a text that could be added",
                hint="weights and KV caches without their text need the model itself",
            )
        texts += found
    prefix = prefix_of(texts)
    if not with_records:
        yield Addition(prefix, lambda _: "")
        return
    with client.mount(
        with_records, budget_tokens=budget_tokens, filters=_RECORDS, trust=trust
    ) as memory:
        yield Addition(prefix, memory.context)
