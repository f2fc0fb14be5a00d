"""What `adapter_config.json` of a LoRA adapter says, in PEFT's own words, checked (docs/spec/parametric.md)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any, Final, Generic, Self, TypeVar

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import InvalidConfigError, UnsupportedError
from memcube_protocol.values import frozen

CONFIG_FILE: Final = "adapter_config.json"

_BIASES: Final = ("none", "all", "lora_only")
_PLAIN_INITS: Final = (True, False, None, "default", "gaussian", "orthogonal", "eva")
_PLAIN_KEY: Final = re.compile(r"\^?[A-Za-z0-9_.-]+")
_FULL_PATHS: Final = "write the full paths of the modules instead"
_Number = TypeVar("_Number", int, float)


@frozen
class Exceptions(Generic[_Number]):
    """Values for some modules, each with its place in the config: of those that fit, the first counts.

    `paths` are for the module of this path, `endings` for all whose path is this or ends so. Found by
    what a path ends with: a config can have as many of them as an adapter has modules.
    """

    paths: Mapping[str, tuple[int, _Number]] = field(default_factory=dict[str, tuple[int, _Number]])
    endings: Mapping[str, tuple[int, _Number]] = field(
        default_factory=dict[str, tuple[int, _Number]]
    )

    @classmethod
    def of(cls, pattern: Mapping[str, _Number]) -> Self:
        """Those of `pattern`, keyed by endings of paths, or by `^` and a whole one."""
        paths: dict[str, tuple[int, _Number]] = {}
        ends: dict[str, tuple[int, _Number]] = {}
        for place, (key, value) in enumerate(pattern.items()):
            (paths if key.startswith("^") else ends)[key.removeprefix("^")] = place, value
        return cls(paths, ends)

    def value_of(self, path: str, default: _Number) -> _Number:
        """The value of the module at `path`."""
        if not self.paths and not self.endings:
            return default
        found = [self.endings[end] for end in endings(path) if end in self.endings]
        found += [self.paths[path]] if path in self.paths else []
        return min(found)[1] if found else default


@frozen
class AdapterConfig:
    """What `adapter_config.json` says, checked; `raw` holds every field, known or not.

    `rank` and `alpha` are the defaults, `rank_pattern` and `alpha_pattern` the exceptions by module.
    `modules_to_save` are endings of the paths of modules that are replaced as a whole.
    `bias` says which of the model's biases have others in their place: `none`, `all`, or `lora_only`,
    those of the modules that have factors.
    """

    rank: int
    alpha: float
    base_model: str | None = None
    revision: str | None = None
    target_modules: tuple[str, ...] | str = ()
    rank_pattern: Exceptions[int] = field(default_factory=Exceptions[int])
    alpha_pattern: Exceptions[float] = field(default_factory=Exceptions[float])
    modules_to_save: frozenset[str] = frozenset()
    rank_stabilised: bool = False
    dora: bool = False
    bias: str = "none"
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
            rank_pattern=Exceptions.of(
                {key: _rank(value, key) for key, value in _pattern(values, "rank_pattern").items()}
            ),
            alpha_pattern=Exceptions.of(
                {
                    key: _alpha(value, key)
                    for key, value in _pattern(values, "alpha_pattern").items()
                }
            ),
            modules_to_save=_names(values, "modules_to_save"),
            rank_stabilised=_flag(values, "use_rslora"),
            dora=_flag(values, "use_dora"),
            bias=values.get("bias", "none"),
            raw=values,
        )

    def rank_of(self, path: str) -> int:
        """The rank of the module at `path`."""
        return self.rank_pattern.value_of(path, self.rank)

    def scale_of(self, path: str) -> float:
        """The factor of the module at `path`: alpha ÷ rank, or alpha ÷ √rank if rank-stabilised."""
        rank = self.rank_of(path)
        return self.alpha_of(path) / (math.sqrt(rank) if self.rank_stabilised else rank)

    def alpha_of(self, path: str) -> float:
        """The alpha of the module at `path`."""
        return self.alpha_pattern.value_of(path, self.alpha)

    def saves(self, path: str) -> bool:
        """Whether the module at `path` is replaced as a whole."""
        return any(ending in self.modules_to_save for ending in endings(path))


def endings(path: str) -> Iterator[str]:
    """`path` and what stands in it behind each of its dots."""
    yield path
    dot = path.find(".")
    while dot >= 0:
        yield path[dot + 1 :]
        dot = path.find(".", dot + 1)


def _require_supported(values: Mapping[str, Any]) -> None:
    if values.get("peft_type") != "LORA":
        raise _unsupported(
            f"peft_type {str(values.get('peft_type'))[:40]!r}", "only LORA is mounted"
        )
    init = values.get("init_lora_weights", True)
    if init not in _PLAIN_INITS:
        raise _unsupported(
            f"init_lora_weights {str(init)[:40]!r}, which rewrites the base model's weights",
            "convert it to a plain LoRA when saving (path_initial_model_for_weight_conversion)",
        )
    if values.get("bias", "none") not in _BIASES:
        raise _unsupported(
            f"bias {str(values['bias'])[:40]!r}, which is unknown",
            f"use one of {', '.join(_BIASES)}",
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


def _names(values: Mapping[str, Any], key: str) -> frozenset[str]:
    names = values.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise _invalid(f"{key} is not a list of names")
    return frozenset(names)


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
