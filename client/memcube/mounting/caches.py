"""The KV caches of a mounting: mapped, read anew by the model, or their text in their place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol.config import ACTIVATION, Memory
from memcube_protocol.errors import IncompatibleError, UnsupportedError

from memcube.consuming import opening
from memcube.consuming.holdings import BUILDS, memory_folder
from memcube.context import Context
from memcube.memories.window import window_of
from memcube.mounting.chosen import Chosen
from memcube.mounting.offers import Wishes, manifest_of
from memcube.mounting.passages import prefix_text
from memcube.mounting.planning import Planned
from memcube.mounting.steps import Step

if TYPE_CHECKING:
    from memcube_protocol.identity import BaseIdentity

    from memcube.memories.activation.mount import MountedKv
    from memcube.memories.activation.mounted import Prefix

BARE: Final = "bare"
"""The special-token policy of a text that is tokenised as it stands (docs/spec/activation.md)."""


class Caches:
    """What every prompt starts with, put together memory by memory; `undo` takes each off.

    `identity` gives that of the model's base, which is computed when it is first needed.
    """

    def __init__(
        self,
        context: Context,
        model: Any,
        tokenizer: Any,
        wishes: Wishes,
        undo: ExitStack,
        identity: Callable[[], BaseIdentity],
    ) -> None:
        self._context = context
        self._model = model
        self._tokenizer = tokenizer
        self._wishes = wishes
        self._undo = undo
        self._identity = identity
        self._mounted: list[tuple[Prefix, str | None]] = []
        self._texts: list[tuple[str, str]] = []

    @property
    def prefix(self) -> Prefix | None:
        """The cache that prompts start with."""
        return self._mounted[0][0] if self._mounted else None

    @property
    def text(self) -> str:
        """The text that prompts start with: that of the cache if it is known, or texts in its place."""
        return (self._mounted[0][1] or "") if self._mounted else prefix_text(self._texts)

    def load(self, choice: Planned, chosen: Chosen, memory: Memory) -> tuple[Step, str]:
        """Map the cache, the wished part of it.

        Raises:
            IncompatibleError: it does not fit, and is not to be read anew or carries no text.
        """
        from memcube.memories.activation.mounted import Exactness
        from memcube.scanning.findings import opacity_of

        try:
            cache = self._mount(*self._folder(choice, chosen, memory))
        except IncompatibleError:
            text = manifest_of(self._context, chosen, memory).source.text
            if not self._wishes.rebuild or text is None or self._mounted:
                raise
            return self.prefill(replace(choice, keep=True), chosen, memory)
        exactness = Exactness.APPROXIMATE if len(self._mounted) > 1 else cache.exactness
        label = opacity_of(chosen.verified, memory.id, cache.manifest.source.text)
        count, whole = len(cache.token_ids), cache.manifest.key.token_count
        tokens = f"{count} tokens" if count == whole else f"the first {count} of {whole} tokens"
        slow = f"; copied for each question: {why}" if (why := cache.why_copied()) else ""
        return Step.MOUNTED, f"{tokens}, every field of the key equal, {exactness}; {label}{slow}"

    def prefill(self, choice: Planned, chosen: Chosen, memory: Memory) -> tuple[Step, str]:
        """The text of a cache: read by the model now, or put before every prompt where there is none."""
        manifest = manifest_of(self._context, chosen, memory)
        text = manifest.source.text
        assert text is not None
        if self._model is None:
            self._texts.append((memory.id, text))
            return Step.PREFIX, "as text"
        from memcube.memories.activation.composition import prefill_kv
        from memcube.memories.activation.prompt import prompt_of

        bare = manifest.key.special_tokens == BARE
        ids = prompt_of(self._tokenizer, text=text, add_special_tokens=not bare).ids
        count = self._beginning(len(ids)) or len(ids)
        self._require_readable(count)
        if choice.keep and count == len(ids):
            cache = self._mount(self._kept(chosen, memory, text, bare=bare))
            return Step.REBUILT, f"{len(cache.token_ids)} tokens read anew, kept on disk"
        prefix = prefill_kv(self._model, ids[:count])
        self._undo.callback(prefix.unmount)
        self._mounted.append((prefix, text if count == len(ids) else None))
        return Step.REBUILT, f"{count} tokens read anew, kept in memory"

    def compose(self) -> None:
        """Put the mounted caches behind each other, as one; nothing to do where there is one or none."""
        if len(self._mounted) < 2:
            return
        from memcube.memories.activation.composition import compose_kv

        composed = compose_kv([cache for cache, _ in self._mounted])
        self._undo.callback(composed.unmount)
        for cache, _ in self._mounted:
            cache.unmount()
        texts = [text for _, text in self._mounted if text is not None]
        whole = "".join(texts) if len(texts) == len(self._mounted) else None
        self._mounted = [(composed, whole)]

    def _require_readable(self, tokens: int) -> None:
        """Refuse a text that leaves no room for a question: a publisher may put any text beside a cache.

        Raises:
            IncompatibleError: it is as long as the model's texts may be, or longer.
        """
        longest = window_of(self._model)
        if longest is not None and tokens >= longest:
            raise IncompatibleError(
                f"its text has {tokens} tokens, and this model reads {longest}",
                hint="mount the beginning of it: --prefix-tokens",
            )

    def _beginning(self, tokens: int) -> int | None:
        """How many of `tokens` tokens are wished, if not all of them."""
        wished = self._wishes.prefix_tokens
        return wished if wished is not None and wished < tokens else None

    def _folder(self, choice: Planned, chosen: Chosen, memory: Memory) -> tuple[Path, int | None]:
        """Where the cache lies, and how much of it is mounted; a beginning is fetched alone if it can be."""
        if built := chosen.build_of(memory):
            return built.folder(self._context), self._beginning(choice.offer.whole_tokens)
        tokens = self._beginning(choice.offer.whole_tokens)
        if tokens is None:
            return memory_folder(self._context, chosen.verified, memory.id), None
        from memcube.memories.activation.fetching import fetch_prefix

        try:
            found = fetch_prefix(self._context, chosen.verified, memory.id, tokens)
        except UnsupportedError:  # this registry sends whole blobs only
            opening.fetch(self._context, chosen.verified, chosen.files_of(memory))
            return memory_folder(self._context, chosen.verified, memory.id), tokens
        return found.folder, tokens

    def _mount(self, folder: Path, tokens: int | None = None) -> MountedKv:
        from memcube.memories.activation.mount import mount_kv

        cache = mount_kv(
            folder,
            self._model,
            self._tokenizer,
            base_identity=self._identity(),
            prefix_tokens=tokens,
        )
        self._undo.callback(cache.unmount)
        self._mounted.append((cache, cache.manifest.source.text if tokens is None else None))
        return cache

    def _kept(self, chosen: Chosen, memory: Memory, text: str, *, bare: bool) -> Path:
        """The folder of a cache of `text` for the model as it is now, made where it is absent."""
        from memcube.memories.activation.dump import dump_kv

        place = self._build_place(chosen, memory)
        folder = place / ACTIVATION / memory.id
        if not folder.is_dir():
            dump_kv(
                self._model,
                self._tokenizer,
                text=text,
                folder=place,
                memory_id=memory.id,
                base_identity=self._identity(),
                add_special_tokens=not bare,
                control_tokens=True,  # those that its publisher put there
            )
        return folder

    def _build_place(self, chosen: Chosen, memory: Memory) -> Path:
        """Where caches of this memory for the model as it is now are kept."""
        from memcube.memories.activation.key import active_adapters

        adapters = ",".join(map(str, active_adapters(self._model)))
        mark = hashlib.sha256(f"{self._identity()} {adapters} {memory.id}".encode()).hexdigest()
        digest = chosen.verified.cube.digest
        return self._context.settings.home / BUILDS / digest.hex / mark[:32]
