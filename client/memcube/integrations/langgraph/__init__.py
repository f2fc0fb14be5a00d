"""A mounted memory as a LangGraph store; needs `memcube[langgraph]`.

    overlay = Overlay.open("my-notes")
    with memcube.mount("acme/handbook", overlay=overlay) as memory:
        graph = builder.compile(store=MemcubeStore(memory, overlay))

| namespace | what | may be changed |
|---|---|---|
| `("cubes", NAME)` | the records of a mounted cube; see `cube_namespace` | no |
| `("overlay",)` | what was remembered otherwise, by `memory.remember` or an MCP client | deleted |
| any other | what graphs put there; kept in the overlay | yes |
"""

from memcube_protocol.errors import MissingDependencyError

try:
    from memcube.integrations.langgraph.store import MemcubeStore
except ModuleNotFoundError as error:
    raise MissingDependencyError(
        f"the store needs the package {error.name!r}", hint="pip install 'memcube[langgraph]'"
    ) from None
from memcube.integrations.langgraph.items import cube_namespace

__all__ = ["MemcubeStore", "cube_namespace"]
