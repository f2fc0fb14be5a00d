"""What mounted cubes add to the prompts of a proxy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from memcube_protocol.activation import MANIFEST_FILE, KvManifest
from memcube_protocol.config import ACTIVATION, PLAINTEXT
from memcube_protocol.content import read_verified
from memcube_protocol.errors import NotFoundError

from memcube.context import NORMAL_TRUST, Trust
from memcube.proxy.rendering import Addition, prefix_of

if TYPE_CHECKING:
    from memcube.client import Client
    from memcube.consume import Verified
    from memcube.loader import MountedCube


@contextmanager
def mounted(
    client: Client, references: Sequence[str], budget_tokens: int, *, trust: Trust = NORMAL_TRUST
) -> Iterator[Addition]:
    """What the cubes at `references` add; records in at most `budget_tokens` tokens for each request.

    Raises:
        NotFoundError: a cube has neither records nor the source text of a KV memory.
        MemcubeError: whatever opening and mounting a cube raises.
    """
    texts: list[str] = []
    memories: list[MountedCube] = []
    with ExitStack() as undo:
        for reference in references:
            verified = client.open(reference, filters=("kind=plaintext,activation",), trust=trust)
            found = list(source_texts(client, verified))
            kinds = {memory.kind for memory in verified.cube.config.memories}
            if PLAINTEXT in kinds:
                memory = client.mount(reference, filters=("kind=plaintext",), trust=trust)
                memories.append(undo.enter_context(memory))
            elif not found:
                raise NotFoundError(
                    f"{reference} has neither records nor a text that could be added",
                    hint="weights and KV caches without their text need the model itself",
                )
            texts += found

        def look_up(question: str) -> str:
            share = budget_tokens // len(memories) if memories else 0
            found = (memory.context(question, share) for memory in memories)
            return "\n\n".join(filter(None, found))

        yield Addition(prefix_of(texts), look_up)


def source_texts(client: Client, verified: Verified) -> Iterator[str]:
    """The texts that the KV memories of a cube carry, in the order of its config."""
    for memory in verified.cube.config.memories:
        path = f"{ACTIVATION}/{memory.id}/{MANIFEST_FILE}"
        files = [file for file in verified.cube.files if file.path == path]
        if memory.kind != ACTIVATION or not files:
            continue
        raw = read_verified(client.context.store, files[0].digest)
        text = KvManifest.parse(raw).source.text
        if text is not None:
            yield text
