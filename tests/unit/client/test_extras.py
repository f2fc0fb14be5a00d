"""Without an optional package, what needs it says which one, and how to install it."""

from __future__ import annotations

import importlib
import sys

import pytest
from memcube.proxy.serving import require_packages
from memcube_protocol.errors import MissingDependencyError


@pytest.mark.parametrize(
    ("module", "lacking", "extra"),
    [
        ("memcube.integrations.langchain", "langchain_core", "langchain"),
        ("memcube.integrations.langgraph", "langgraph", "langgraph"),
    ],
)
def test_a_module_of_an_extra_names_the_extra(
    module: str, lacking: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name == module or name.startswith(f"{module}."):
            monkeypatch.delitem(sys.modules, name)
        elif name == lacking or name.startswith(f"{lacking}."):
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, lacking, None)
    with pytest.raises(MissingDependencyError, match=lacking) as raised:
        importlib.import_module(module)
    assert raised.value.hint == f"pip install 'memcube[{extra}]'"


@pytest.mark.parametrize("lacking", ["httpx2", "starlette", "uvicorn"])
def test_the_proxy_names_the_package_that_it_lacks(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, lacking, None)
    with pytest.raises(MissingDependencyError, match=lacking) as raised:
        require_packages()
    assert raised.value.hint == "pip install 'memcube[proxy]'"
