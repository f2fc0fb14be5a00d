"""The client: everything that the command line does, as methods of one object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Unpack

from memcube_protocol.cube import Cube
from memcube_protocol.reference import Reference
from memcube_protocol.selection import Selection

from memcube.closing import Closing
from memcube.consuming import finding, opening, verifying
from memcube.consuming.verifying import Verified
from memcube.context import NORMAL_TRUST, Context, Trust
from memcube.settings import Settings
from memcube.store import Pruned
from memcube.trust import KeyStore, Verdict
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
        """Pack `folder` into the local store, with vectors by `embedder` if there is one.

        Raises:
            NotFoundError: there is no such folder.
            InvalidError, LimitExceededError: a file breaks a rule; the error names it.
            StorageError: the store cannot be written, or a file not be read.
        """
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
        """Fetch a cube, verify it, and keep it in the local store; offline, what is there already.

        With a filter for a model come the builds that its publisher made for that model.

        Raises:
            NotFoundError: there is no such cube, or no memory that a filter names.
            TrustError: its provenance cannot be established.
            IntegrityError: the registry sent other bytes than it named; nothing of them is used.
            UnauthenticatedError, ForbiddenError, NetworkError: as the registry answers.
        """
        selection = Selection.parse(filters)
        wanted = _reference(reference)
        if self.context.settings.offline:
            return opening.open_cube(self.context, wanted, selection=selection, trust=trust)
        verified = opening.pull(self.context, wanted, selection=selection, trust=trust)
        if not selection.models:
            return verified
        from memcube.building.finding import pull_builds

        return pull_builds(self.context, verified, selection)

    def open(
        self, reference: Name, *, filters: Filters = (), trust: Trust = NORMAL_TRUST
    ) -> Verified:
        """A verified cube from the local store, pulled if it is not there.

        Raises:
            NotFoundError: neither the store nor the registry has it, or memcube is offline.
            TrustError, IntegrityError, NetworkError: as `pull`.
        """
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
        """Write a verified cube as the plain folder `folder`, pulled if it is not there.

        Raises:
            RuleRefusedError: the cube's own rules forbid it.
            ConflictError: `folder` holds something already.
            DiskFullError, ReadOnlyError, StorageError: it cannot be written; nothing is left behind.
            …: as `open`.
        """
        from memcube import rules
        from memcube.packing.unpack import unpack_files

        opened = self.open(reference, filters=filters, trust=trust)
        verified = rules.require_export(self.context, opened)
        with self.context.store.session():
            unpack_files(verified.files, self.context.store, Path(folder))
        return verified

    def path(self, reference: Name, memory: str, *, trust: Trust = NORMAL_TRUST) -> Path:
        """A folder with one verified memory, for tools that load files: PEFT and vLLM load an adapter from it.

        The same call gives the same folder again; one that was changed is written anew.

        Raises:
            RuleRefusedError: the cube's own rules forbid it.
            NotFoundError: the cube has no memory of that id.
            InvalidTensorsError, InvalidConfigError, UnsupportedError: an adapter that no mount would take.
            StorageError: it cannot be written.
            …: as `open`.
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
        return verifying.recheck(self.context, _reference(reference), trust)

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
        """Manifest, config and attestations of a cube, from the store or its registry: nothing is judged.

        Raises:
            NotFoundError: there is no such cube, or the store lacks it and memcube is offline.
            NetworkError: no answer.
        """
        return finding.look_at(self.context, _reference(reference))

    def ls(self) -> tuple[holdings.Held, ...]:
        """The cubes in the local store, sorted by reference."""
        from memcube.consuming import holdings

        return holdings.held(self.context)

    def ls_remote(self, place: str) -> Listed:
        """The cubes of a namespace elsewhere, or the tags of a cube; see `listing.list_place`."""
        from memcube.consuming import listing

        return listing.list_place(self.context, place)

    def rm(self, reference: Name) -> Reference:
        """Forget a cube; its bytes go with the next `prune`. Says what was forgotten.

        Raises:
            NotFoundError: the store does not hold it.
        """
        return self.forget(reference).reference

    def forget(self, reference: Name) -> holdings.Forgotten:
        """As `rm`; says also what went with it, and what still keeps the cube."""
        from memcube.consuming import holdings

        return holdings.forget(self.context, _reference(reference))

    def prune(
        self, *, older_than_days: float | None = None, max_bytes: int | None = None
    ) -> Pruned:
        """Free space in the local store: what no name keeps, and on request cubes that were not used lately.

        `older_than_days` counts from the last use; `max_bytes` is what may stay, the longest unused going
        first.

        Raises:
            ConflictError: another process uses the store.
            StorageError: something could not be removed.
        """
        from memcube.consuming import holdings

        return holdings.prune(self.context, older_than_days=older_than_days, max_bytes=max_bytes)

    def login(
        self, token: str, host: str = "", *, username: str = ""
    ) -> tuple[session.Identity, str]:
        """Keep a token for the registry at `host` once it was taken; says also where it is kept.

        Raises:
            UnauthenticatedError: the registry refuses it; nothing is kept.
            NetworkError: no answer.
            StorageError: it cannot be kept.
        """
        from memcube.accounts import session
        from memcube.accounts.credentials import Credentials

        return session.login(self.context, host, Credentials(username, token))

    def logout(self, host: str = "") -> bool:
        """Forget the token for the registry at `host`; says whether there was one.

        Raises:
            StorageError: it is still there.
        """
        from memcube.accounts import session

        return session.logout(self.context, host)

    def whoami(self, host: str = "") -> session.Identity:
        """Who the registry at `host` takes us for.

        Raises:
            UnauthenticatedError: there is no token for it, or it refuses it.
            NetworkError: no answer.
        """
        from memcube.accounts import session

        return session.whoami(self.context, host)

    def tag(
        self, reference: Name, tag: str, *, trust: Trust = NORMAL_TRUST, backwards: bool = False
    ) -> Reference:
        """Point the moving `tag` at a published cube, which is verified first; names both, tag and digest.

        Raises:
            InvalidReferenceError: `tag` is no tag.
            ConflictError: `tag` is a full version, which only a release makes; or it leads to a later
                release now, and `backwards` does not allow that.
            TrustError: the cube's provenance cannot be established.
            UnauthenticatedError, ForbiddenError, NetworkError: as the registry answers.
        """
        from memcube.publishing import tagging

        wanted = _reference(reference)
        return tagging.add_tag(self.context, wanted, tag, trust=trust, backwards=backwards)

    def cp(self, source: Place, target: Place, **how: Unpack[CopyTerms]) -> registries.Copied:
        """Copy a cube with everything attached to it between registries, or into and out of `oci:FOLDER`.

        Raises:
            TrustError: the source's provenance cannot be established.
            OriginMismatchError: the target is known to hold the releases of another cube.
            RuleRefusedError: the cube's own rules forbid it, or that everybody reads it.
            ConflictError: an immutable tag of the target names another cube.
            InvalidReferenceError: both are folders, or one holds several cubes.
            UnauthenticatedError, ForbiddenError, NetworkError: as the registries answer.
        """
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
            IncompatibleError: no LoRA, or no KV cache, of the cubes fits the model; names every reason.
            TrustError, IntegrityError: a cube's provenance or bytes are not in order.
            MissingDependencyError: an optional package is not installed.
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
        """What `mount` would do with each memory and why, with bytes and seconds; no layer is fetched.

        Raises:
            NotFoundError, TrustError, NetworkError, InvalidRequestError: as `mount`.
        """
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
