"""What the planner is offered: the memories of the chosen cubes, as they and this machine are now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from memcube_protocol import limits, media_types
from memcube_protocol.activation import KvManifest
from memcube_protocol.config import ACTIVATION, PARAMETRIC, Memory
from memcube_protocol.content import read_verified
from memcube_protocol.cube import CubeFile
from memcube_protocol.errors import InvalidError, NotFoundError
from memcube_protocol.values import frozen

from memcube.consuming.holdings import FOLDERS
from memcube.context import CONTEXT_TOKENS, Context
from memcube.memories.plaintext.context import estimate_tokens
from memcube.mounting import measuring
from memcube.mounting.chosen import Chosen
from memcube.mounting.planning import LITTLE_BYTES, Circumstances, Misfit, Offer, Plan, plan
from memcube.profiles import Profile
from memcube.rules import mount_rulings
from memcube.speeds import Speeds
from memcube.trust import location_of
from memcube.usage import Usage

if TYPE_CHECKING:
    from memcube_protocol.identity import BaseIdentity

    from memcube.mounting.fitting import Looks


@frozen
class Wishes:
    """How the user wants cubes mounted.

    `budget_tokens` bounds the text for one prompt, over all cubes. `allow_unverified_base` mounts an
    adapter that does not say which base it was trained on; `rebuild` computes a KV cache anew from
    its source text where it does not fit the model and carries it; `compose` mounts several KV caches
    behind each other, which is approximate; `prefix_tokens` mounts only the beginning of a KV cache, and
    fetches no more of it. `embedder` is one for searches, or what names one
    (`memories.plaintext.plugins`); `search_server` is the address of a Qdrant server to search on.

    `profile` is the role that the user mounts in; `leaves_to` names the hosts that get what is found,
    such as that of a model behind an API.
    """

    budget_tokens: int = CONTEXT_TOKENS
    allow_unverified_base: bool = False
    rebuild: bool = False
    profile: Profile | None = None
    leaves_to: tuple[str, ...] = ()
    compose: bool = False
    prefix_tokens: int | None = None
    embedder: object = None
    search_server: str | None = None

    def __post_init__(self) -> None:
        if type(self.budget_tokens) is not int or self.budget_tokens < 1:
            raise InvalidError(
                f"a budget of {self.budget_tokens!r} tokens is none",
                hint="give a whole number, one or more",
            )
        if self.prefix_tokens is not None and self.prefix_tokens < 1:
            raise InvalidError(
                f"a beginning of {self.prefix_tokens} tokens is none", hint="ask for one or more"
            )

    @property
    def hosts(self) -> tuple[str, ...]:
        """Every host that gets content of the cubes, but for embedding: their rules ask for these."""
        server = urlsplit(self.search_server or "").netloc.rpartition("@")[2]
        return (*self.leaves_to, *([server] if server else []))

    @property
    def embedded_at(self) -> tuple[str, ...]:
        """Who but this machine makes vectors of texts and questions: the cubes' rules ask for these."""
        from memcube.memories.plaintext.plugins import places_of

        return places_of(self.embedder)


NO_WISHES: Final = Wishes()


class Planning:
    """Plans the mounting of cubes, before any of their layers is fetched."""

    def __init__(
        self, context: Context, model: Any, tokenizer: Any, wishes: Wishes = NO_WISHES
    ) -> None:
        self._context = context
        self._model = model
        self._tokenizer = tokenizer
        self._wishes = wishes

    def plan(self, cubes: Sequence[Chosen], identity: BaseIdentity | None = None) -> Plan:
        """What to do with each memory; `identity` is the model's, where there is one and it matters.

        Of a cube whose own rules forbid it to be mounted, everything is left.

        Raises:
            IntegrityError: the local store is damaged.
        """
        looks = self._looks(identity)
        offers = self._fitted([*self._offers(cubes)], looks)
        offers = [replace(offer, forbidden=self._forbidden(cubes, offer)) for offer in offers]
        speeds = self._speeds(offers, looks)
        prefill = speeds.prefills.get(looks.mark) if looks else None
        has_model, wishes = self._model is not None, self._wishes
        at = Circumstances(
            speeds, has_model, prefill, wishes.rebuild, wishes.budget_tokens, wishes.compose
        )
        return plan(offers, at)

    def needs_identity(self, cubes: Sequence[Chosen]) -> bool:
        """Whether a memory is made for one model, and there is one to compare it with."""
        kinds = {memory.kind for chosen in cubes for memory in chosen.memories()}
        return self._model is not None and bool(kinds & {ACTIVATION, PARAMETRIC})

    def manifests(self, chosen: Chosen, drafted: Plan) -> tuple[CubeFile, ...]:
        """The manifests of KV caches that may be used, without which it is not known what they carry."""
        return tuple(
            _manifest(chosen, memory)
            for memory in chosen.memories()
            if memory.kind == ACTIVATION
            and (choice := drafted.of(chosen.name, memory.id))
            and self._may_use(choice.offer)
        )

    def _may_use(self, offer: Offer) -> bool:
        return offer.has_text is None and (offer.misfit is None or self._wishes.rebuild)

    def _forbidden(self, cubes: Sequence[Chosen], offer: Offer) -> str | None:
        """Why the rules of the cube forbid that it is mounted."""
        verified = next(chosen.verified for chosen in cubes if chosen.name == offer.cube)
        wishes = self._wishes
        said = mount_rulings(
            self._context,
            verified,
            profile=wishes.profile,
            leaves_to=wishes.hosts,
            embedded_at=wishes.embedded_at,
        )
        refused = [f"{one.rule} = {one.value}: {one.refusal}" for one in said if not one.allows]
        return "; ".join(refused) or None

    def _looks(self, identity: BaseIdentity | None) -> Looks | None:
        if self._model is None or identity is None:
            return None
        from memcube.mounting.fitting import Looks

        return Looks.of(self._model, self._tokenizer, identity)

    def _offers(self, cubes: Sequence[Chosen]) -> Iterator[tuple[Memory, Offer]]:
        with closing(Usage.of(self._context.settings)) as usage:
            used = [_used(usage, chosen) for chosen in cubes]
        for chosen, (mounts, answers) in zip(cubes, used, strict=True):
            # Of the KV caches of one cube, the one in use stays the prefix.
            for memory in sorted(chosen.memories(), key=lambda one: -answers.get(one.id, 0)):
                offer = self._offer(chosen, memory)
                yield memory, replace(offer, answers=answers.get(memory.id, 0), mounts=mounts)

    def _offer(self, chosen: Chosen, memory: Memory) -> Offer:
        store, files = self._context.store, chosen.files_of(memory)
        here = [file for file in files if store.has(file.digest, file.size)]
        size_bytes = sum(file.size for file in files)
        absent_bytes, tokens = size_bytes - sum(file.size for file in here), _tokens(memory)
        wanted = min(self._wishes.prefix_tokens or tokens, tokens)
        if wanted < tokens:
            size_bytes = round(size_bytes * wanted / tokens)
            absent_bytes = round(absent_bytes * wanted / tokens)
        text = self._text(chosen, memory) if memory.kind == ACTIVATION else None
        return Offer(
            cube=chosen.name,
            memory=memory.id,
            kind=memory.kind,
            host=chosen.verified.reference.host,
            size_bytes=size_bytes,
            absent_bytes=absent_bytes,
            warm_share=self._warm_share(chosen, memory, here),
            tokens=wanted,
            whole_tokens=tokens,
            records=memory.records or 0,
            has_text=None if text is None else bool(text),
            text_tokens=estimate_tokens(text) if text else 0,
            spare=chosen.is_spare(memory),
        )

    def _warm_share(self, chosen: Chosen, memory: Memory, files: Sequence[CubeFile]) -> float:
        """That of the largest file: as a mount before this laid it out, else as the store has it."""
        largest = max(files, key=lambda file: file.size, default=None)
        if largest is None:
            return 0.0
        folder = self._context.settings.home / FOLDERS / chosen.verified.cube.digest.hex / memory.id
        laid_out = folder / largest.path.rpartition("/")[2]
        stored = self._context.store.path(largest.digest, largest.size)
        return measuring.warm_share(laid_out if laid_out.is_file() else stored)

    def _text(self, chosen: Chosen, memory: Memory) -> str | None:
        """The source text of a KV cache, empty where it carries none; None: its manifest is not here."""
        try:
            return manifest_of(self._context, chosen, memory).source.text or ""
        except NotFoundError:
            return None

    def _fitted(self, offers: Sequence[tuple[Memory, Offer]], looks: Looks | None) -> list[Offer]:
        """The offers, with why they do not fit; adapters first, for a cache names those under it."""
        if looks is None:
            return [offer for _, offer in offers]
        from memcube.mounting.fitting import adapter_misfit, cache_misfit

        active, allow = list(looks.adapters), self._wishes.allow_unverified_base
        misfits: dict[int, Misfit | None] = {}
        for position, (memory, _) in enumerate(offers):
            if memory.kind == PARAMETRIC:
                misfit = adapter_misfit(memory, looks, allow_unverified_base=allow)
                misfits[position] = misfit
                active += [] if misfit else [str(memory.compatibility.get("adapter"))]
        for position, (memory, _) in enumerate(offers):
            if memory.kind == ACTIVATION:
                misfits[position] = cache_misfit(memory, looks, active)
        return [
            replace(offer, misfit=misfits.get(position))
            for position, (_, offer) in enumerate(offers)
        ]

    def _speeds(self, offers: Sequence[Offer], looks: Looks | None) -> Speeds:
        """What is known of this machine; a figure that a choice needs is measured first."""
        store, now = self._context.speeds, self._context.now()
        speeds = before = store.load()
        if any(offer.size_bytes > LITTLE_BYTES for offer in offers):
            speeds = measuring.with_disk(speeds, self._context.settings.home, now)
        if looks and any(offer.kind == ACTIVATION and offer.misfit is None for offer in offers):
            speeds = measuring.with_model(speeds, self._model, now)
        if speeds is not before:
            store.keep(speeds)
        return speeds


def _tokens(memory: Memory) -> int:
    """How long a KV cache is by its config, which says it in words of the publisher; 0 where it does not."""
    tokens = memory.shape.get("tokens")
    return tokens if isinstance(tokens, int) and 0 < tokens <= limits.KV_TOKENS else 0


def manifest_of(context: Context, chosen: Chosen, memory: Memory) -> KvManifest:
    """What the KV cache `memory` says of itself, its source text with it where it carries one.

    Raises:
        NotFoundError: its manifest is not in the store.
        IntegrityError, InvalidConfigError: it is damaged.
    """
    return KvManifest.parse(read_verified(context.store, _manifest(chosen, memory).digest))


def _manifest(chosen: Chosen, memory: Memory) -> CubeFile:
    """The layer that says what a KV cache is made of.

    Raises:
        NotFoundError: it has none.
    """
    for file in chosen.files_of(memory):
        if file.media_type == media_types.KV_MANIFEST:
            return file
    raise NotFoundError(
        f"the KV cache {memory.id} of {chosen.name} has no manifest",
        hint="its publisher has to pack it anew",
    )


def _used(usage: Usage, chosen: Chosen) -> tuple[int, dict[str, int]]:
    """How often the cube was mounted here, and how many answers were given with each of its KV caches."""
    location = location_of(chosen.verified.reference)
    caches = [memory.id for memory in chosen.memories() if memory.kind == ACTIVATION]
    cube, memories = usage.cube(location), usage.memories(location, caches)
    return cube.mounts if cube else 0, {name: use.answers for name, use in memories.items()}
