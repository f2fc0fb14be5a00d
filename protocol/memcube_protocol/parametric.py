"""A parametric memory as files: PEFT's LoRA folder, checked before it comes near a model.

    parametric/<id>/adapter_config.json         PEFT's own, fields that are not known here are kept
                    adapter_model.safetensors   what PEFT writes; its header may carry `memcube`

`memcube` in the header's metadata is canonical JSON with the base model (id, revision, identity)
and how the adapter was trained: PEFT reads such a file as it is (MIP 1.0 section 6,
identity-and-access.md section 5, docs/spec/parametric.md).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple, Self, TypeVar

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import InvalidConfigError, UnsupportedError
from memcube_protocol.fields import Fields
from memcube_protocol.identity import AdapterIdentity, BaseIdentity, TensorIdentity
from memcube_protocol.tensors import Header, Rejection, Tensor, rejected

CONFIG_FILE: Final = "adapter_config.json"
TENSORS_FILE: Final = "adapter_model.safetensors"
METADATA_KEY: Final = "memcube"
PEFT_PREFIX: Final = "base_model.model."

_PLAIN_INITS: Final = (True, False, None, "default", "gaussian", "orthogonal", "eva")
_FACTOR: Final = re.compile(
    r"(?P<path>.+)\.(?P<part>lora_(?:A|B)\.weight|lora_embedding_(?:A|B)|lora_magnitude_vector)"
)
_PLAIN_KEY: Final = re.compile(r"\^?[A-Za-z0-9_.-]+")
_FULL_PATHS: Final = "write the full paths of the modules instead"
_Number = TypeVar("_Number", int, float)
_FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """What `adapter_config.json` says, checked; `raw` holds every field, known or not.

    `rank` and `alpha` are the defaults, `rank_pattern` and `alpha_pattern` the exceptions by
    module, keyed as PEFT does (a name, or a regular expression that a module's path ends with).
    """

    rank: int
    alpha: float
    base_model: str | None = None
    revision: str | None = None
    target_modules: tuple[str, ...] | str = ()
    rank_pattern: Mapping[str, int] = field(default_factory=dict[str, int])
    alpha_pattern: Mapping[str, float] = field(default_factory=dict[str, float])
    modules_to_save: tuple[str, ...] = ()
    rank_stabilised: bool = False
    dora: bool = False
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """The config that `raw` holds.

        Raises:
            LimitExceededError: more than 1 MiB.
            InvalidJsonError: not strict JSON.
            InvalidConfigError: a known field has a wrong value.
            UnsupportedError: not LoRA, or LoRA of a kind that changes the base model.
        """
        limits.require_at_most(CONFIG_FILE, len(raw), limits.CONFIG_BYTES)
        values = canonical_json.parse_object(raw, what=CONFIG_FILE)
        _require_supported(values)
        return cls(
            rank=_rank(values.get("r", 8), "r"),
            alpha=_alpha(values.get("lora_alpha", 8), "lora_alpha"),
            base_model=_optional_text(values, "base_model_name_or_path"),
            revision=_optional_text(values, "revision"),
            target_modules=_targets(values.get("target_modules")),
            rank_pattern={k: _rank(v, k) for k, v in _pattern(values, "rank_pattern").items()},
            alpha_pattern={k: _alpha(v, k) for k, v in _pattern(values, "alpha_pattern").items()},
            modules_to_save=_names(values, "modules_to_save"),
            rank_stabilised=_flag(values, "use_rslora"),
            dora=_flag(values, "use_dora"),
            raw=values,
        )

    def rank_of(self, path: str) -> int:
        """The rank of the module at `path`."""
        return _by_pattern(self.rank_pattern, path, self.rank)

    def scale_of(self, path: str) -> float:
        """The factor of the module at `path`: alpha ÷ rank, or alpha ÷ √rank if rank-stabilised."""
        rank = self.rank_of(path)
        return self.alpha_of(path) / (math.sqrt(rank) if self.rank_stabilised else rank)

    def alpha_of(self, path: str) -> float:
        """The alpha of the module at `path`."""
        return _by_pattern(self.alpha_pattern, path, self.alpha)


@dataclass(frozen=True, slots=True)
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
    """How sure it is that an adapter belongs to a model (identity-and-access.md section 5)."""

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


@dataclass(frozen=True, slots=True)
class Module:
    """One module that an adapter changes: its path, rank, and the shape [out, in] that it implies."""

    path: str
    rank: int
    outputs: int
    inputs: int


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter whose files agree: its config, its tensors, its modules, what it was trained on."""

    config: AdapterConfig
    header: Header
    modules: tuple[Module, ...]
    base: Base
    training: Mapping[str, Any]

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
    return Adapter(parsed, header, modules, base, training)


def require_fit(adapter: Adapter, shapes: Mapping[str, tuple[int, int]]) -> None:
    """Refuse an adapter for modules that the model lacks or has in another shape, or of a senseless rank.

    A rank above both sides of its module adds nothing but bytes; without this bound a small model
    could be given an adapter of any size.

    `shapes` holds [out, in] for every linear or embedding module of the model, by full path.

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


def metadata(base: Base, training: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The header's metadata that says what an adapter was trained on, and how."""
    value = {"base": base.to_json(), "training": dict(training or {})}
    return {"format": "pt", METADATA_KEY: canonical_json.dump(value).decode()}


def _provenance(values: Mapping[str, str], config: AdapterConfig) -> tuple[Base, dict[str, Any]]:
    text = values.get(METADATA_KEY)
    if text is None:
        return Base(config.base_model, config.revision), {}
    source = Fields(canonical_json.parse(text.encode(), what="adapter metadata"), METADATA_KEY)
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
    if path and any(path == kept or path.endswith(f".{kept}") for kept in config.modules_to_save):
        return path, part
    raise rejected(Rejection.UNEXPECTED, f"{tensor.name[:200]!r} is no part of a LoRA adapter")


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


def _require_supported(values: Mapping[str, Any]) -> None:
    if values.get("peft_type") != "LORA":
        raise _unsupported(f"peft_type {values.get('peft_type')!r}", "only LORA is mounted")
    init = values.get("init_lora_weights", True)
    if init not in _PLAIN_INITS:
        raise _unsupported(
            f"init_lora_weights {init!r}, which rewrites the base model's weights",
            "convert it to a plain LoRA when saving (path_initial_model_for_weight_conversion)",
        )
    if values.get("bias", "none") != "none":
        raise _unsupported(
            f"bias {values['bias']!r}, which overwrites the base model's biases",
            "train it with bias='none'",
        )
    for key in (
        "layer_replication",
        "trainable_token_indices",
        "megatron_config",
        "alora_invocation_tokens",
        "use_qalora",
        "use_bdlora",
        "lora_bias",
        "arrow_config",
        "kasa_config",
        "monteclora_config",
        "velora_config",
        "target_parameters",
    ):
        if values.get(key):
            raise _unsupported(
                f"{key}, which changes the model beyond its linear layers", "train it without"
            )


def _by_pattern(pattern: Mapping[str, _Number], path: str, default: _Number) -> _Number:
    """The value of the first key that names the module at `path` or an ending of it."""
    for key, value in pattern.items():
        name = key.removeprefix("^")
        if path == name or (name == key and path.endswith(f".{name}")):
            return value
    return default


def _pattern(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The exceptions by module; keys are plain names, as regular expressions could be made to hang."""
    table = _table(values, name)
    plain = {key.removesuffix("$").replace("\\.", "."): value for key, value in table.items()}
    for key in plain:
        if not _PLAIN_KEY.fullmatch(key):
            raise _unsupported(f"the regular expression {key[:80]!r} in {name}", _FULL_PATHS)
    return plain


def _rank(value: object, name: str) -> int:
    if type(value) is not int or not 1 <= value <= limits.LORA_RANK:
        raise _invalid(f"{name} is {value!r}, not a rank from 1 to {limits.LORA_RANK}")
    return value


def _alpha(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid(f"{name} is {str(value)[:40]!r}, not a number")
    if not abs(value) < limits.MAGNITUDE:
        raise _invalid(f"{name} is {value!r}, not a number below {limits.MAGNITUDE}")
    return value


def _targets(value: object) -> tuple[str, ...] | str:
    if value is None or isinstance(value, str):
        return value or ()
    if isinstance(value, list) and all(isinstance(name, str) and name for name in value):
        return tuple(sorted(value))
    raise _invalid("target_modules is neither a pattern nor a list of names")


def _names(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    names = values.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise _invalid(f"{key} is not a list of names")
    return tuple(names)


def _table(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = values.get(key)
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise _invalid(f"{key} is not an object")
    return table


def _flag(values: Mapping[str, Any], key: str) -> bool:
    value = values.get(key) or False
    if not isinstance(value, bool):
        raise _invalid(f"{key} is not true or false")
    return value


def _optional_text(values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is not None and (not isinstance(value, str) or len(value) > limits.PATH_BYTES):
        raise _invalid(f"{key} is not a name")
    return value or None


def _unsupported(what: str, hint: str) -> UnsupportedError:
    return UnsupportedError(f"this adapter has {what}", hint=hint)


def _invalid(what: str) -> InvalidConfigError:
    return InvalidConfigError(
        f"not an acceptable {CONFIG_FILE}: {what}", hint="see docs/spec/parametric.md"
    )
