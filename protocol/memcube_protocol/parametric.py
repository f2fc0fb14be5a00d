"""A parametric memory as files: PEFT's LoRA folder, checked before it comes near a model.

    parametric/<id>/adapter_config.json         PEFT's own, fields that are not known here are kept
                    adapter_model.safetensors   what PEFT writes; its header may carry `memcube`

`memcube` in the header's metadata is canonical JSON with the base model (id, revision, identity)
and how the adapter was trained: PEFT reads such a file as it is (docs/spec/parametric.md).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import field
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self

from memcube_protocol import canonical_json
from memcube_protocol.adapter_config import AdapterConfig
from memcube_protocol.fields import Fields
from memcube_protocol.identity import AdapterIdentity, BaseIdentity, TensorIdentity
from memcube_protocol.tensors import Header, Rejection, Tensor, rejected
from memcube_protocol.values import frozen

TENSORS_FILE: Final = "adapter_model.safetensors"
METADATA_KEY: Final = "memcube"
PEFT_PREFIX: Final = "base_model.model."

_FACTOR: Final = re.compile(
    r"(?P<path>.+)\.(?P<part>lora_(?:A|B)\.weight|lora_embedding_(?:A|B)|lora_magnitude_vector)"
)
_BIAS: Final = "bias"
_INNER_BIAS: Final = "base_layer.bias"
_COPIES: Final = frozenset({"original_module", "modules_to_save"})
"""In which PEFT holds a module that is saved whole, twice; it saves the biases of both beside the module's own."""
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})


@frozen
class Base:
    """Which model an adapter was trained on, or which one is loaded, as far as known.

    `form` says how the weights are held (`BF16`, or a quantisation); `origin` is the identity of
    the checkpoint that a quantised or re-cast model was made from.
    """

    model: str | None = None
    revision: str | None = None
    identity: BaseIdentity | None = None
    form: str | None = None
    origin: BaseIdentity | None = None

    def to_json(self) -> dict[str, str]:
        """The JSON object of this base; what is unknown is left out."""
        value = {
            "model": self.model,
            "revision": self.revision,
            "identity": str(self.identity) if self.identity else None,
            "form": self.form,
        }
        return {key: item for key, item in value.items() if item is not None}

    @classmethod
    def from_fields(cls, source: Fields) -> Self:
        """Base that `source` describes.

        Raises:
            InvalidConfigError, InvalidDigestError: a field is malformed.
        """
        identity = source.optional_text("identity")
        base = cls(
            source.optional_text("model"),
            source.optional_text("revision"),
            BaseIdentity.parse(identity) if identity else None,
            source.optional_text("form"),
        )
        source.finish()
        return base


class Level(StrEnum):
    """How sure it is that an adapter belongs to a model (docs/spec/parametric.md)."""

    EXACT = "exact"
    DECLARED = "declared"
    UNKNOWN = "unknown"


class Verdict(NamedTuple):
    """A level and the reason for it."""

    level: Level
    why: str


def judge(adapter: Base, model: Base) -> Verdict:
    """How sure it is that an adapter trained on `adapter` belongs to the loaded `model`."""
    wanted, actual = adapter.identity, model.identity
    if wanted and wanted == actual:
        return Verdict(Level.EXACT, f"the base identity is equal: {wanted}")
    if wanted and wanted == model.origin:
        return Verdict(Level.DECLARED, "the model is a quantisation or re-cast of the base")
    named = adapter.model is not None and adapter.model == model.model
    if not named:
        return Verdict(
            Level.UNKNOWN,
            f"the adapter names {adapter.model or 'no base'}, the model is {model.model or 'unnamed'}",
        )
    if adapter.revision and model.revision and adapter.revision != model.revision:
        return Verdict(
            Level.UNKNOWN, f"revision {adapter.revision} is wanted, {model.revision} is loaded"
        )
    if wanted and actual and adapter.form == model.form:
        return Verdict(Level.UNKNOWN, f"{model.model} has other weights than the base it names")
    return Verdict(Level.DECLARED, f"both name {model.model}, the weights were not compared")


@frozen
class Module:
    """One module that an adapter changes: its path, rank, and the shape [out, in] that it implies."""

    path: str
    rank: int
    outputs: int
    inputs: int


@frozen
class Adapter:
    """An adapter whose files agree: its config, its tensors, its modules, what it was trained on.

    `biases` are the tensors that take the places of the model's own biases, by path of the module, and
    `saved` those of the modules that are replaced as a whole, by path and by name in the module.
    """

    config: AdapterConfig
    header: Header
    modules: tuple[Module, ...]
    base: Base
    training: Mapping[str, Any]
    biases: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    saved: Mapping[str, Mapping[str, Tensor]] = field(
        default_factory=dict[str, Mapping[str, Tensor]]
    )

    @property
    def is_additive(self) -> bool:
        """Whether all it does is to add products of factors, which can be scaled and combined."""
        return not (self.config.dora or self.saved or self.biases)

    def compatibility(self, parts: Iterable[TensorIdentity]) -> dict[str, Any]:
        """What the cube's config says of this memory; `parts` are the tensors under their own names."""
        listed = sorted(parts)
        return {
            "base": self.base.to_json(),
            "rank": self.config.rank,
            "alpha": self.config.alpha,
            "adapter": str(adapter_identity(listed)),
            "modules": {
                module.path: [module.rank, module.outputs, module.inputs] for module in self.modules
            },
            "tensors": {part.name: part.blake3.hex() for part in listed},
            "training": dict(self.training),
        }


def check(config: bytes, header: Header) -> Adapter:
    """The adapter whose `adapter_config.json` is `config` and whose tensors `header` lists.

    Raises:
        InvalidTensorsError: a tensor that is no part of a LoRA, a pair that is not complete, a
            shape that contradicts the rank, or an element type that is not a float.
        InvalidConfigError, InvalidJsonError, LimitExceededError, UnsupportedError: see
            `AdapterConfig.parse`; or malformed metadata.
    """
    parsed = AdapterConfig.parse(config)
    base, training = _provenance(header.metadata, parsed)
    groups: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for tensor in header.tensors:
        path, part = _place(tensor, parsed)
        groups[path][part] = tensor
    modules = tuple(
        module
        for path, parts in sorted(groups.items())
        if (module := _module(path, parts, parsed)) is not None
    )
    if not modules:
        raise rejected(Rejection.UNEXPECTED, "the adapter changes no module")
    biases = {
        path: bias
        for path, parts in sorted(groups.items())
        if (bias := _bias(path, parts, parsed)) is not None
    }
    saved = {path: parts for path, parts in sorted(groups.items()) if parsed.saves(path)}
    return Adapter(parsed, header, modules, base, training, biases, saved)


def require_fit(
    adapter: Adapter,
    shapes: Mapping[str, tuple[int, int]],
    biases: Mapping[str, tuple[int, ...]],
    saved: Mapping[str, Mapping[str, tuple[int, ...]]],
) -> None:
    """Refuse an adapter for modules that the model lacks or has in another shape, or of a senseless rank.

    A rank above both sides of its module adds nothing but bytes; without this bound a small model
    could be given an adapter of any size. What replaces a module has to be all of it: of the rest PEFT
    would make copies, which a small file could have it do with every module of the model.

    `shapes` holds [out, in] for every linear or embedding module of the model, by full path,
    `biases` the shape of the bias of every module that has one, and `saved` the shape of every tensor
    of those modules that the adapter replaces as a whole.

    Raises:
        InvalidTensorsError: names every module that does not fit, up to eight.
    """
    problems = []
    for module in adapter.modules:
        actual = shapes.get(module.path)
        if actual is None:
            problems.append(f"the model has no module {module.path}")
        elif actual != (module.outputs, module.inputs):
            problems.append(
                f"{module.path} is {actual[0]} x {actual[1]} in the model, "
                f"{module.outputs} x {module.inputs} in the adapter"
            )
        elif module.rank > max(actual):
            problems.append(f"{module.path} is {actual[0]} x {actual[1]}, its rank {module.rank}")
    for path, tensor in adapter.biases.items():
        held = biases.get(path)
        if held is None:
            problems.append(f"the model has no bias {path}.{_BIAS}")
        elif held != tensor.shape:
            problems.append(
                f"the bias of {path} is {list(held)} in the model, {list(tensor.shape)} in the adapter"
            )
    for path, parts in adapter.saved.items():
        given = {name: tensor.shape for name, tensor in parts.items()}
        if given != saved.get(path):
            problems.append(f"the tensors for all of {path} are not those that the module has")
    if problems:
        more = f" and {len(problems) - 8} more" if len(problems) > 8 else ""
        raise rejected(Rejection.UNEXPECTED, "; ".join(problems[:8]) + more)


def adapter_identity(parts: Iterable[TensorIdentity]) -> AdapterIdentity:
    """Identity of an adapter; PEFT's `base_model.model.` before a name does not count.

    Raises:
        InvalidTensorsError: no tensor, or a name twice.
    """
    return AdapterIdentity.of(
        TensorIdentity(part.name.removeprefix(PEFT_PREFIX), part.dtype, part.shape, part.blake3)
        for part in parts
    )


def bias_name(path: str, *, inner: bool) -> str:
    """The name of the bias of the module at `path`; of an `inner` one if PEFT has wrapped the module for its factors."""
    return f"{path}.{_INNER_BIAS if inner else _BIAS}"


def metadata(base: Base, training: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The header's metadata that says what an adapter was trained on, and how."""
    value = {"base": base.to_json(), "training": dict(training or {})}
    return {"format": "pt", METADATA_KEY: canonical_json.dump(value).decode()}


def _provenance(values: Mapping[str, str], config: AdapterConfig) -> tuple[Base, dict[str, Any]]:
    text = values.get(METADATA_KEY)
    if text is None:
        return Base(config.base_model, config.revision), {}
    value = canonical_json.parse_object(text.encode(), what="adapter metadata")
    source = Fields(value, METADATA_KEY)
    base, training = Base.from_fields(source.table("base")), source.object("training")
    source.finish()
    return base, training


def _place(tensor: Tensor, config: AdapterConfig) -> tuple[str, str]:
    """Module path and part that the name of `tensor` says."""
    if tensor.dtype not in _FLOATS:
        raise rejected(Rejection.DTYPE, f"{tensor.name[:200]!r} is {tensor.dtype}, not a float")
    name = tensor.name.removeprefix(PEFT_PREFIX)
    if match := _FACTOR.fullmatch(name):
        return match["path"], match["part"]
    path, _, part = name.rpartition(".")
    if path and config.saves(path):
        return path, part
    if path and part == _BIAS and config.bias != "none" and not _COPIES & {*path.split(".")}:
        inner = path.removesuffix(".base_layer")
        return inner, _BIAS if inner == path else _INNER_BIAS
    raise rejected(Rejection.UNEXPECTED, f"{tensor.name[:200]!r} is no part of a LoRA adapter")


def _bias(path: str, parts: dict[str, Tensor], config: AdapterConfig) -> Tensor | None:
    """The bias among `parts`, under the name that PEFT looks for: any other it would pass over in silence."""
    if config.saves(path):
        return None
    has_factors = any(part.startswith("lora_") for part in parts)
    name = _INNER_BIAS if has_factors else _BIAS
    for part in parts.keys() & {_INNER_BIAS, _BIAS}:
        if part != name or (config.bias == "lora_only" and not has_factors):
            raise rejected(
                Rejection.UNEXPECTED,
                f"{parts[part].name[:200]!r} is no bias of an adapter with bias {config.bias!r} "
                f"that has {'' if has_factors else 'no '}factors for this module",
            )
    return parts.get(name)


def _module(path: str, parts: dict[str, Tensor], config: AdapterConfig) -> Module | None:
    """The module that `parts` change; None for one that is replaced as a whole."""
    embedding = any(part.startswith("lora_embedding") for part in parts)
    names = (
        ("lora_embedding_A", "lora_embedding_B")
        if embedding
        else ("lora_A.weight", "lora_B.weight")
    )
    if not any(part.startswith("lora_") for part in parts):
        return None
    if not all(name in parts for name in names):
        raise rejected(Rejection.UNEXPECTED, f"{path[:200]} lacks one of {' and '.join(names)}")
    if ("lora_magnitude_vector" in parts) != config.dora:
        raise rejected(Rejection.UNEXPECTED, f"{path[:200]}: magnitude vectors belong to DoRA")
    down, up, rank = parts[names[0]], parts[names[1]], config.rank_of(path)
    if len(down.shape) != 2 or len(up.shape) != 2 or down.shape[0] != rank or up.shape[1] != rank:
        raise rejected(
            Rejection.SHAPE,
            f"{path[:200]} has factors {list(down.shape)} and {list(up.shape)}, its rank is {rank}",
        )
    return Module(path, rank, up.shape[0], down.shape[1])
