"""Publish, pull, verify and mount memory for language models.

    import memcube

    memcube.push("my-cube")
    with memcube.mount("alice/notes", model=model, tokenizer=tokenizer) as memory:
        print(memory.generate("Which backups are there?"))

Every name is loaded when it is first used (PEP 562): the import itself costs nothing.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as in `typing`, which takes longer to load than all that is needed here

if TYPE_CHECKING:
    from typing import Any, Final

    from memcube_protocol.errors import MemcubeError

    from memcube.client import Client
    from memcube.context import Trust
    from memcube.dumper import MemDumper
    from memcube.memories.activation.dump import dump_kv
    from memcube.memories.parametric.dump import dump_lora
    from memcube.mounting import MemLoader, MountedCube, MountedMemory
    from memcube.sdk import (
        cp,
        inspect,
        login,
        logout,
        ls,
        mount,
        pack,
        path,
        plan,
        prune,
        pull,
        push,
        rm,
        tag,
        unpack,
        verify,
        whoami,
    )
    from memcube.settings import Settings
    from memcube.trust import Acceptance, Mode

__all__ = [
    "Acceptance",
    "Client",
    "MemDumper",
    "MemLoader",
    "MemcubeError",
    "Mode",
    "MountedCube",
    "MountedMemory",
    "Settings",
    "Trust",
    "cp",
    "dump_kv",
    "dump_lora",
    "inspect",
    "login",
    "logout",
    "ls",
    "mount",
    "pack",
    "path",
    "plan",
    "prune",
    "pull",
    "push",
    "rm",
    "tag",
    "unpack",
    "verify",
    "whoami",
]

_PLACES: Final = {
    "Acceptance": "memcube.trust",
    "Client": "memcube.client",
    "MemDumper": "memcube.dumper",
    "MemLoader": "memcube.mounting",
    "MemcubeError": "memcube_protocol.errors",
    "Mode": "memcube.trust",
    "MountedCube": "memcube.mounting",
    "MountedMemory": "memcube.mounting",
    "Settings": "memcube.settings",
    "Trust": "memcube.context",
    "dump_kv": "memcube.memories.activation.dump",
    "dump_lora": "memcube.memories.parametric.dump",
}
"""Where a name lives; all others are functions of `memcube.sdk`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_PLACES.get(name, "memcube.sdk")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
