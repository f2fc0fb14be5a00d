"""The client: everything that the command line does, as methods of one object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from memcube_protocol.cube import Cube
from memcube_protocol.errors import NotFoundError
from memcube_protocol.oci import Descriptor
from memcube_protocol.reference import Reference
from memcube_protocol.selection import Selection

from memcube.closing import Closing
from memcube.consuming import finding, opening, verifying
from memcube.consuming.verifying import Verified
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.settings import Settings
from memcube.store import Pruned
from memcube.trust import KeyStore, Verdict, judge_cube
from memcube.trust.attested import Claim, statements_of

if TYPE_CHECKING:
    from memcube_protocol.digest import Digest
    from memcube_protocol.recipe import Recipe
    from memcube_signing.predicates.scan import Scan

    from memcube.accounts import session
    from memcube.building.builder import Built
    from memcube.building.planning import Order, Wanted
    from memcube.building.repeating import Load, Repeated
    from memcube.consuming import holdings
    from memcube.consuming.listing import Listed
    from memcube.copying import registries
    from memcube.copying.oci_layout import LayoutPlace
    from memcube.copying.registries import CopyTerms
    from memcube.mirroring import Mirror, Report
    from memcube.mounting import Asked, MountedMemory, Names, Overlay, Plan
    from memcube.packing.pack import Packed
    from memcube.publishing.publish import Published
    from memcube.publishing.vetting import Vetting
    from memcube.transfer import Progress

Name = Reference | str
Filters = Iterable[str]
OverlayPlace: TypeAlias = "Overlay | Path | str"
"""An overlay, or the folder of one."""
Place: TypeAlias = "Name | LayoutPlace"
"""A reference, or a folder: `oci:FOLDER[:TAG]`."""


class Client(Closing):
    """One user's client; a context manager. `progress` hears of transfers; `keys` are those to sign with.

    References are values or text; a short one means the default registry of the settings. Filters
    are written as for `--filter`: `kind=plaintext`, `memory=ID`, `model=NAME`.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        progress: Progress | None = None,
        keys: KeyStore | None = None,
    ) -> None:
        self.context = Context(settings or Settings.load(), progress=progress, keys=keys)

    def pack(
        self,
        folder: Path | str,
        *,
        name: str | None = None,
        version: str | None = None,
        embedder: object = None,
    ) -> Packed:
        """Pack `folder` into the local store, with vectors by `embedder` if there is one; see `pack_folder`."""
        from memcube.packing.embedding import Embedding
        from memcube.packing.pack import pack_folder

        return pack_folder(
            Path(folder),
            self.context.store,
            name=name,
            version=version,
            embedding=Embedding(embedder, self.context.settings) if embedder else None,
        )

    def push(
        self,
        source: Path | str,
        reference: Name | None = None,
        *,
        key: str | None = None,
        public: bool | None = None,
        trust: Trust = NORMAL_TRUST,
        vet: Vetting | None = None,
        expose: bool = False,
        again: bool = False,
    ) -> Published:
        """Pack, sign and publish the folder `source`, or publish a cube packed before by its name.

        Without `reference` the name in `memcube.toml` decides; one without a namespace goes into
        the account's own. `public` says who may read the cube at our registry; None leaves that as
        it is, and a new cube private. `vet` says what is looked for before, and attached after.
        `expose` lets a cube become public that its governance calls confidential or personal.
        `again` asks the registry for every file, also of a cube that it shows already, and sends what
        it has lost. See `publish.publish` for what else it raises.

        Raises:
            ConflictError: a folder without a version of its own, where newer ones are released.
            RuleRefusedError: its governance speaks against making it public, or the rules of a cube
                that it was made from against pushing it.
            FindingsError: a scan found secrets or programs, and `vet` does not allow them.
        """
        from memcube.publishing import pushing
        from memcube.publishing.vetting import THOROUGH

        wanted = _reference(reference) if reference is not None else None
        terms = pushing.Terms(key, public, trust, vet or THOROUGH, expose, again)
        return pushing.push(self.context, source, wanted, terms)

    def scan(self, cube: Cube) -> Scan:
        """What the rules find in a cube that the local store holds; see `vetting.scan`."""
        from memcube.publishing import vetting

        return vetting.scan(self.context, cube, cube.config.name)

    def pull(
        self, reference: Name, *, filters: Filters = (), trust: Trust = NORMAL_TRUST
    ) -> Verified:
        """Fetch a cube, verify it, and keep it in the local store; see `opening.pull`.

        With a filter for a model come the builds that its publisher made for that model.
        """
        selection = Selection.parse(filters)
        wanted = _reference(reference)
        if self.context.settings.offline:
            return opening.open_cube(self.context, wanted, selection=selection, trust=trust)
        verified = opening.pull(self.context, wanted, selection=selection, trust=trust)
        if not selection.models:
            return verified
        from memcube.building.finding import pull_builds

        _, fetched = pull_builds(self.context, verified, selection)
        return replace(verified, fetched_bytes=verified.fetched_bytes + fetched)

    def open(
        self, reference: Name, *, filters: Filters = (), trust: Trust = NORMAL_TRUST
    ) -> Verified:
        """A verified cube from the local store, pulled if it is not there; see `opening.open_cube`."""
        selection = Selection.parse(filters)
        return opening.open_cube(
            self.context, _reference(reference), selection=selection, trust=trust
        )

    def unpack(
        self,
        reference: Name,
        folder: Path | str,
        *,
        filters: Filters = (),
        trust: Trust = NORMAL_TRUST,
    ) -> Verified:
        """Write a verified cube as the plain folder `folder`; see `packing.unpack.unpack_files`.

        Raises:
            RuleRefusedError: the cube's own rules forbid it.
        """
        from memcube import rules
        from memcube.packing.unpack import unpack_files

        opened = self.open(reference, filters=filters, trust=trust)
        verified = rules.require_export(self.context, opened)
        with self.context.store.session():
            unpack_files(verified.files, self.context.store, Path(folder))
        return verified

    def path(self, reference: Name, memory: str, *, trust: Trust = NORMAL_TRUST) -> Path:
        """A folder with one verified memory, for tools that load files; see `memory_folder`.

        Raises:
            RuleRefusedError: the cube's own rules forbid it.
        """
        from memcube import rules
        from memcube.consuming import holdings

        opened = self.open(reference, filters=(f"memory={memory}",), trust=trust)
        verified = rules.require_export(self.context, opened)
        with self.context.store.session():
            return holdings.memory_folder(self.context, verified, memory)

    def verify(self, reference: Name, *, trust: Trust = NORMAL_TRUST) -> Verdict:
        """The verdict on a cube, rule by rule; a refusal stands in its `error`.

        What the store holds of the cube is hashed anew.

        Raises:
            NotFoundError: there is no such cube.
            IntegrityError: bytes in the store are damaged.
        """
        found = finding.look_at(self.context, _reference(reference))
        verdict = judge_cube(verifying.question(self.context, found, trust))

        def rehash(blob: Descriptor) -> None:
            with suppress(NotFoundError):
                self.context.store.path(blob.digest, blob.size, strict=True)

        with ThreadPoolExecutor(self.context.settings.parallel) as hashing:
            for _ in hashing.map(rehash, found.manifest.blobs):
                pass
        return verdict

    def statements(self, reference: Name, verdict: Verdict) -> tuple[Claim, ...]:
        """Every statement found with a cube, those set apart that do not count by `verdict`."""
        found = finding.look_at(self.context, _reference(reference))
        return statements_of(found.manifest, found.attestations, verdict)

    def verify_proof(
        self, path: Path | str, reference: Name | None = None, *, trust: Trust = NORMAL_TRUST
    ) -> tuple[Verdict, tuple[Claim, ...]]:
        """The verdict on the cube at `reference` by a `.memproof` file alone, and its statements.

        Without `reference` the file names its cube. No connection is opened.

        Raises:
            NotFoundError, InvalidProofError, DigestMismatchError: there is no such proof.
        """
        from memcube.consuming import proofs

        proof = proofs.read(Path(path))
        wanted = _reference(reference) if reference is not None else None
        verdict = proofs.judge(self.context, proof, reference=wanted, trust=trust)
        return verdict, statements_of(proof.manifest, proof.attestations, verdict)

    def inspect(self, reference: Name) -> finding.Found:
        """Manifest, config and attestations of a cube, from the store or its registry, unjudged."""
        return finding.look_at(self.context, _reference(reference))

    def ls(self) -> tuple[holdings.Held, ...]:
        """The cubes in the local store."""
        from memcube.consuming import holdings

        return holdings.held(self.context)

    def ls_remote(self, place: str) -> Listed:
        """The cubes of a namespace elsewhere, or the tags of a cube; see `listing.list_place`."""
        from memcube.consuming import listing

        return listing.list_place(self.context, place)

    def rm(self, reference: Name) -> Reference:
        """Forget a cube; its bytes go with the next `prune`. Says what was forgotten."""
        return self.forget(reference).reference

    def forget(self, reference: Name) -> holdings.Forgotten:
        """As `rm`; says also what went with it, and what still keeps the cube."""
        from memcube.consuming import holdings

        return holdings.forget(self.context, _reference(reference))

    def prune(
        self, *, older_than_days: float | None = None, max_bytes: int | None = None
    ) -> Pruned:
        """Free space in the local store; see `holdings.prune`."""
        from memcube.consuming import holdings

        return holdings.prune(self.context, older_than_days=older_than_days, max_bytes=max_bytes)

    def login(
        self, token: str, host: str = "", *, username: str = ""
    ) -> tuple[session.Identity, str]:
        """Keep a token for the registry at `host` once it was taken; says also where it is kept."""
        from memcube.accounts import session
        from memcube.accounts.credentials import Credentials

        return session.login(self.context, host, Credentials(username, token))

    def logout(self, host: str = "") -> bool:
        """Forget the token for the registry at `host`; says whether there was one."""
        from memcube.accounts import session

        return session.logout(self.context, host)

    def whoami(self, host: str = "") -> session.Identity:
        """Who the registry at `host` takes us for."""
        from memcube.accounts import session

        return session.whoami(self.context, host)

    def tag(
        self, reference: Name, tag: str, *, trust: Trust = NORMAL_TRUST, backwards: bool = False
    ) -> Reference:
        """Let the moving `tag` lead to a published cube; see `tagging.add_tag`."""
        from memcube.publishing import tagging

        wanted = _reference(reference)
        return tagging.add_tag(self.context, wanted, tag, trust=trust, backwards=backwards)

    def cp(self, source: Place, target: Place, **how: Unpack[CopyTerms]) -> registries.Copied:
        """Copy a cube with everything attached to it; see `registries.copy`, and `folders.copy` where one is a folder."""
        from memcube.copying import folders, registries

        here, there = folders.place(source), folders.place(target)
        if isinstance(here, Reference) and isinstance(there, Reference):
            copied = registries.copy(self.context, here, there, **how)
        else:
            copied = folders.copy(self.context, here, there, **how)
        if "exposure" in how and isinstance(copied.reference, Reference):
            how["exposure"].apply(self.context, copied.reference)
        return copied

    def cp_all(
        self, source: Place, target: Place, **how: Unpack[CopyTerms]
    ) -> Iterator[registries.Copied]:
        """Copy every tag of a cube, one after the other; see `registries.copy_tags`."""
        from memcube.copying import folders, registries

        here, there = folders.place(source), folders.place(target)
        return registries.copy_tags(self.context, here, there, **how)

    def mirror(self, mirror: Mirror, *, trust: Trust = NORMAL_TRUST) -> Report:
        """Copy what is new in a namespace into another one; see `mirroring.run_round`."""
        from memcube import mirroring

        return mirroring.run_round(self.context, mirror, trust=trust)

    def mount(
        self,
        references: Names = (),
        *,
        model: Any = None,
        tokenizer: Any = None,
        overlay: OverlayPlace | None = None,
        **asked: Unpack[Asked],
    ) -> MountedMemory:
        """Make the memories of one cube or several usable by `model`; see `mounting.mount`.

        A mapping gives each reference its priority, from 1 to 100; otherwise the publisher's word
        decides, and among equals the order. `overlay` is where `remember` writes: a cube folder of
        the user's own, made where it is absent. What else may be asked: `mounting.Asked`.

        Raises:
            RuleRefusedError: a cube's own rules forbid it.
            NotFoundError: there is no such cube or profile, or nothing that could be mounted.
            InvalidRequestError: cubes are named besides a profile, or neither.
        """
        from memcube import mounting

        cubes, wishes = mounting.choose(self.context, references, **asked)
        return mounting.mount(
            self.context,
            cubes,
            model=model,
            tokenizer=tokenizer,
            overlay=self._overlay(overlay),
            wishes=wishes,
        )

    def plan(
        self,
        references: Names = (),
        *,
        model: Any = None,
        tokenizer: Any = None,
        **asked: Unpack[Asked],
    ) -> Plan:
        """What `mount` would do with each memory and why, with bytes and seconds; no layer is fetched."""
        from memcube import mounting

        cubes, wishes = mounting.choose(self.context, references, **asked)
        return mounting.plan_mount(
            self.context, cubes, model=model, tokenizer=tokenizer, wishes=wishes
        )

    def _overlay(self, place: OverlayPlace | None) -> Overlay | None:
        if not isinstance(place, Path | str):
            return place
        from memcube.overlay import Overlay

        return Overlay.open(place, store=self.context.store)

    def build(
        self,
        reference: Name,
        plan: Recipe | Wanted,
        *,
        model: Any = None,
        tokenizer: Any = None,
        order: Order | None = None,
        trust: Trust = NORMAL_TRUST,
    ) -> Built:
        """Make a memory of a cube for `model` from another one; see `building.builder.build`."""
        from memcube.building.builder import build
        from memcube.building.planning import Order

        verified = opening.open_layerless(self.context, _reference(reference), trust=trust)
        return build(self.context, verified, plan, model, tokenizer, order or Order())

    def repeat(
        self,
        reference: Name,
        build: Digest,
        *,
        model: Any = None,
        tokenizer: Any = None,
        load: Load | None = None,
        order: Order | None = None,
        trust: Trust = NORMAL_TRUST,
    ) -> Repeated:
        """Make a published build of a cube again, and judge both; see `building.repeating.repeat`.

        In the place of model and tokenizer, `load` gives them once it is known that there is such a build.
        """
        from memcube.building.planning import Order
        from memcube.building.repeating import repeat

        verified = opening.open_layerless(self.context, _reference(reference), trust=trust)
        loaded = load or (lambda: (model, tokenizer))
        return repeat(self.context, verified, build, loaded, order or Order())

    def close(self) -> None:
        """Close idle connections."""
        self.context.close()


def _reference(reference: Name) -> Reference:
    return Reference.parse(reference) if isinstance(reference, str) else reference
