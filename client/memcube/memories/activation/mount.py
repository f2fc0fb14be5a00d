"""Mount a KV memory on a live transformers model (docs/spec/activation.md).

A mounted cache equals the live one to the bit, or the mount is refused with every field that
differs. Loading maps the file; each question gets a fresh cache object over the same mapped
tensors, because a used one carries the question before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from memcube_protocol import activation
from memcube_protocol.activation import KvManifest
from memcube_protocol.compatibility import (
    INT8,
    CompatibilityKey,
    Mismatch,
    compare,
    incompatible,
)
from memcube_protocol.errors import NotFoundError
from memcube_protocol.identity import BaseIdentity
from memcube_protocol.tensors import Rejection, rejected

from memcube.memories.activation import files as kv_files
from memcube.memories.activation.capture import attention_layers
from memcube.memories.activation.files import WatchedFile, kv_file, open_kv, views
from memcube.memories.activation.key import model_key, special_tokens
from memcube.memories.activation.mounted import Exactness, Layers, MappedLayers, Prefix
from memcube.memories.activation.prompt import BARE, GIVEN, ids_of_text
from memcube.memories.activation.room import room_errors
from memcube.memories.model_identity import live_identity

if TYPE_CHECKING:
    from memcube.memories.activation.streaming import HeldKv

FOLDER: Final = "activation"


def mount_kv(
    folder: Path,
    model: Any,
    tokenizer: Any,
    *,
    base_identity: BaseIdentity | None = None,
    prefix_tokens: int | None = None,
    expected_ids: Sequence[int] | None = None,
    verify_blocks: bool = True,
    held: HeldKv | None = None,
) -> MountedKv:
    """The memory in `folder`, mapped and ready for `model`; mount the cube's LoRA before it.

    `prefix_tokens` mounts only the beginning; `expected_ids` are the ids that the prompt will
    start with, where the caller knows them; `verify_blocks=False` skips the hashes of files that
    were verified a moment ago. `held` spares another device than a CPU the reading of the file.

    Raises:
        IncompatibleError: names every field of the key that differs, and what to do.
        InvalidTensorsError, DigestMismatchError, InvalidConfigError: the files are damaged or hostile.
        NotFoundError: a file is missing.
        UnsupportedError: the model has layers that keep no keys and values.
        LimitExceededError: there is no room for it.
    """
    watched = WatchedFile(kv_file(folder))
    manifest, ids, storage = open_kv(folder)
    watched.require_still_there()
    layer_count = attention_layers(model)
    base = base_identity or live_identity(model)
    mismatches = list(compare(manifest.key, asked_key(manifest, ids, model, tokenizer, base)))
    mismatches += _id_mismatches(ids, expected_ids, prefix_tokens)
    if mismatches:
        raise incompatible(mismatches)
    _require_layers(manifest, layer_count)
    _require_known(ids, model)
    count = len(ids) if prefix_tokens is None else prefix_tokens
    if not 1 <= count <= len(ids):
        raise NotFoundError(
            f"a prefix of {count} tokens of a memory of {len(ids)}", hint="ask for fewer tokens"
        )
    verify = verify_blocks or watched.path.name == kv_files.PARTIAL_FILE
    if model.device.type == "cpu":
        layers = _mapped(manifest, storage, count, model, watched, verify=verify)
    else:
        from memcube.memories.activation.streaming import StreamedLayers

        layers = StreamedLayers(manifest, held or watched.path, count, model.device, verify=verify)
    return MountedKv(manifest, ids[:count], model, layers)


def _mapped(
    manifest: KvManifest,
    storage: Any,
    count: int,
    model: Any,
    watched: WatchedFile,
    *,
    verify: bool,
) -> Layers:
    check = partial(kv_files.verify_blocks, manifest, storage, count)
    if verify:
        check()
    are_views = manifest.key.kv_quantisation != INT8
    with room_errors():
        held = tuple(views(manifest, storage, count, model))
        return MappedLayers(held, partial(watched.require_unchanged, check) if are_views else None)


class MountedKv(Prefix):
    """A KV memory on a model: the token ids that every prompt starts with, and fresh caches for them.

    On a CPU its tensors are the mapped file. On another device they may still be arriving: a damaged
    file then ends the first question that comes to it, with the error that a mount on a CPU raises.
    """

    def __init__(
        self, manifest: KvManifest, token_ids: tuple[int, ...], model: Any, layers: Layers
    ) -> None:
        lossy = manifest.key.kv_quantisation == INT8
        super().__init__(
            model, token_ids, layers, Exactness.EIGHT_BITS if lossy else Exactness.EXACT
        )
        self.manifest = manifest

    def wait(self) -> None:
        """Wait until every layer is on the device.

        Raises:
            DigestMismatchError, SizeMismatchError, InvalidTensorsError: the file is damaged.
            ConflictError: the memory was unmounted.
        """
        layers = self.layers
        for position in range(len(self.manifest.layers)):
            layers.view(position)


def asked_key(
    manifest: KvManifest, ids: Sequence[int], model: Any, tokenizer: Any, base: BaseIdentity
) -> CompatibilityKey:
    """The key that `model` asks for: the memory's own ids, or those of its text where it carries one."""
    policy = manifest.key.special_tokens
    if policy != GIVEN:
        policy = special_tokens(tokenizer, added=policy != BARE)
    if manifest.source.text is not None and policy != GIVEN:
        ids = ids_of_text(tokenizer, manifest.source.text, policy)
    raw = activation.encode_tokens(ids)
    storage = manifest.key.kv_quantisation  # one that we read: it says nothing of the model
    return model_key(
        model, tokenizer, base=base, tokens=raw, special_tokens=policy, storage=storage
    )


def _id_mismatches(
    ids: Sequence[int], expected: Sequence[int] | None, prefix_tokens: int | None
) -> list[Mismatch]:
    if expected is None:
        return []
    count = len(ids) if prefix_tokens is None else prefix_tokens
    shared = activation.shared_tokens(ids, expected)
    if shared >= count:
        return []
    return [
        Mismatch(
            "tokens",
            f"{ids[shared]} at position {shared}",
            str(expected[shared]) if shared < len(expected) else "the end of the prompt",
            f"mount at most the {shared} tokens that they have in common",
        )
    ]


def _require_layers(manifest: KvManifest, wanted: int) -> None:
    """Refuse a manifest with the key of a model that has another number of layers.

    Raises:
        InvalidTensorsError: it is one; no writer makes it.
    """
    if len(manifest.layers) != wanted:
        raise rejected(
            Rejection.UNEXPECTED, f"{len(manifest.layers)} layers for a model of {wanted}"
        )


def _require_known(ids: Sequence[int], model: Any) -> None:
    """Refuse token ids that `model` does not have: a look-up of one would end a GPU's whole process.

    Raises:
        InvalidTensorsError: there is one; no writer makes it.
    """
    known = model.get_input_embeddings().weight.shape[0]
    if max(ids) >= known:
        raise rejected(Rejection.UNEXPECTED, f"token {max(ids)} for a model of {known}")
