"""What a publication adds to a repository of the Hub and takes from it: pure, but for reading the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from memcube_protocol import limits, media_types, oci
from memcube_protocol.config import PARAMETRIC
from memcube_protocol.cube import Cube
from memcube_protocol.digest import Digest
from memcube_protocol.errors import MemcubeError, NotFoundError
from memcube_protocol.oci import Descriptor, Manifest

from memcube.hub import card
from memcube.hub.additions import Addition
from memcube.hub.layout import CARD, CONFIG, INDEX, MANIFEST, Catalogue, blob_path, file_path
from memcube.hub.reading import HubReader
from memcube.store import Store

_EMPTY: Final = b"{}"
_LORA: Final = frozenset({media_types.LORA, media_types.LORA_CONFIG})


@dataclass(slots=True)
class Contents:
    """What was uploaded to one repository and is not committed yet, by digest.

    `store` holds it, and perhaps what the repository has already; `held` is what the Hub has of what it wants in LFS.
    """

    store: Store | None = None
    held: set[Digest] = field(default_factory=set[Digest])
    _files: dict[Digest, tuple[Addition, Any]] = field(
        default_factory=dict[Digest, tuple[Addition, Any]]
    )

    def add(self, addition: Addition, operation: Any) -> None:
        """Keep a content that is uploaded or small, and the library's value for it; None where it has none."""
        self._files[addition.digest] = (addition, operation)

    def require(self, blobs: Iterable[Descriptor]) -> None:
        """Make sure that all of `blobs` were uploaded.

        Raises:
            NotFoundError: one was not.
        """
        for blob in blobs:
            self.at(blob.digest, "")

    def at(self, digest: Digest, path: str) -> Addition:
        """The uploaded content, to be added at `path`.

        Raises:
            NotFoundError: it was not uploaded.
        """
        if digest == oci.EMPTY.digest:
            return Addition(path, digest, oci.EMPTY.size, _EMPTY)
        if digest not in self._files:
            raise NotFoundError(f"{digest} was not uploaded", hint="push the cube again")
        known = self._files[digest][0]
        return Addition(path, digest, known.size, known.content)

    def read(self, digest: Digest, limit: int) -> bytes:
        """An uploaded content of at most `limit` bytes.

        Raises:
            NotFoundError: it was not uploaded.
            LimitExceededError: it is larger.
        """
        found = self.at(digest, "")
        limits.require_at_most(f"blob {digest}", found.size, limit)
        content = found.content
        return content if isinstance(content, bytes) else content.read_bytes()

    def has(self, digest: Digest) -> bool:
        """Whether it was uploaded."""
        return digest in self._files

    def kept(self, digest: Digest, path: str) -> Addition | None:
        """What the store holds of a content that the repository has at `path` already."""
        if self.store is None or not self.store.has(digest):
            return None
        place = self.store.path(digest)
        return Addition(path, digest, place.stat().st_size, place)

    def operation(self, addition: Addition) -> Any:
        """The library's value for `addition`, if it was uploaded under this very path."""
        known = self._files.get(addition.digest)
        return known[1] if known and known[0].path == addition.path else None


def addition_of(blob: Descriptor, store: Store) -> Addition:
    """A blob of the store under the path that it most likely gets: how it is sent depends on the name.

    Raises:
        NotFoundError, SizeMismatchError: the store does not hold it.
    """
    try:
        path = file_path(blob)
    except MemcubeError:
        path = blob_path(blob.digest)
    return Addition(path, blob.digest, blob.size, store.path(blob.digest, blob.size))


def contents_of(files: Mapping[str, bytes]) -> list[Addition]:
    """Small files, by path."""
    return [
        Addition(path, Digest.of(content), len(content), content) for path, content in files.items()
    ]


def release(
    cube: Cube,
    before: Cube | None,
    uploaded: Contents,
    *,
    place: str,
    own_card: Callable[[Digest], bytes],
) -> list[Addition]:
    """The files of `cube`. Those that `before` has at the same place are named again where they are at hand.

    So a file that somebody changed there by hand is put right; the Hub takes no content that it has.
    `own_card` reads the card that `before` has already.
    """
    present = _files(before) if before else {}
    plan: list[Addition] = []
    for path, digest in _files(cube).items():
        if uploaded.has(digest):
            plan.append(uploaded.at(digest, path))
        elif present.get(path) == digest and (known := uploaded.kept(digest, path)):
            plan.append(known)
    text = b""
    for file in cube.files:
        if file.media_type == media_types.CARD and file_path(file.descriptor()) != file.path:
            at_hand = uploaded.has(file.digest)
            text = (
                uploaded.read(file.digest, limits.CARD_BYTES) if at_hand else own_card(file.digest)
            )
    shown = card.readme(cube, text.decode("utf-8", "replace"), place)
    written = {CARD: shown, MANIFEST: cube.manifest.raw, CONFIG: cube.config.write()}
    return [*plan, *contents_of(written)]


def left_behind(cube: Cube, before: Cube | None) -> list[str]:
    """Paths of `before` at which `cube` has nothing; blobs by digest stay, older statements need them."""
    return sorted(set(_files(before)) - set(_files(cube))) if before else []


def attachment(manifest: Manifest, uploaded: Contents) -> list[Addition]:
    """The files of something attached: the manifest and its blobs, each by its digest."""
    blobs = {blob.digest for blob in manifest.blobs}
    plan = [uploaded.at(digest, blob_path(digest)) for digest in blobs]
    return [*plan, *contents_of({blob_path(manifest.digest): manifest.raw})]


def read_catalogue(reader: HubReader, name: str, commit: str) -> Catalogue:
    """The catalogue of a commit, empty where there is none.

    Raises:
        InvalidManifestError, InvalidJsonError, LimitExceededError: it cannot be read.
    """
    try:
        raw = reader.read(name, commit, INDEX, limits.MANIFEST_BYTES)
    except NotFoundError:
        return Catalogue()
    found = oci.parse(raw)
    return Catalogue.of(found) if isinstance(found, oci.Index) else Catalogue()


def _files(cube: Cube) -> dict[str, Digest]:
    """Digests by path of everything that is the cube's own content.

    An adapter that is the only one lies at the root as well, where PEFT and the Hub look for it.
    """
    files = {file_path(file.descriptor()): file.digest for file in cube.files}
    adapters = [memory for memory in cube.config.memories if memory.kind == PARAMETRIC]
    if len(adapters) == 1:
        for file in cube.files_of(adapters[0].id):
            if file.media_type in _LORA:
                files.setdefault(file.path.rpartition("/")[2], file.digest)
    return files
