"""Values refuse to be changed once they are made (house-style, "Values")."""

import dataclasses
import importlib
import inspect
import pkgutil
from pathlib import Path

import memcube.trust
import memcube_signing
import pytest

ROOT = Path(__file__).parents[2]


def values() -> list[type]:
    found = {}
    for package in (memcube_signing, memcube.trust):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            for _, kind in inspect.getmembers(module, inspect.isclass):
                if kind.__module__ == info.name and dataclasses.is_dataclass(kind):
                    found[f"{kind.__module__}.{kind.__qualname__}"] = kind
    return [found[name] for name in sorted(found)]


@pytest.mark.parametrize("value", values(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_a_value_of_the_verifier_is_frozen_and_has_no_room_for_more(value: type) -> None:
    assert value.__dataclass_params__.frozen
    assert "__slots__" in vars(value)


def test_what_commands_load_is_built_the_quick_way() -> None:
    slow = "@dataclass(frozen=True, slots=True)\n"
    parts = (ROOT / part for part in ("protocol", "signing", "client"))
    files = [path for part in parts for path in part.rglob("*.py")]
    found = {path.name for path in files if slow in path.read_text(encoding="utf-8")}
    assert found == {"identity.py"}  # one of its values is derived from the other
