"""The server as the official client sees it, in both eras of the protocol, in this process."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
from memcube.mcp.desk import Desk
from memcube.mounting import MountedMemory
from support.mounted import HANDBOOK, mounted_desk

mcp = pytest.importorskip("mcp")
pytest.importorskip("qdrant_edge")
READING = ["search", "fetch", "read", "context", "cite", "list"]
FERRY = f"{HANDBOOK}#ferry"
Talk = Callable[[Any], Awaitable[Any]]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with mounted_desk(tmp_path_factory.mktemp("server")) as desk:
        yield desk


@pytest.fixture(params=["legacy", "auto"])
def say(request: pytest.FixtureRequest, desk: Desk) -> Callable[[Talk], Any]:
    """Runs a conversation with the server of `desk`."""
    return lambda talk: conversation(desk, talk, mode=request.param)


def conversation(desk: Desk, talk: Talk, *, mode: str = "auto") -> Any:
    from memcube.mcp.server import server_of

    async def held() -> Any:
        info = mcp.Implementation(name="tester", version="7")
        async with mcp.Client(server_of(desk), mode=mode, client_info=info) as client:
            return await talk(client)

    return anyio.run(held)


def called(say: Callable[[Talk], Any], name: str, **arguments: object) -> Any:
    return say(lambda client: client.call_tool(name, arguments))


def test_the_tools_are_described_with_what_they_do(say: Callable[[Talk], Any]) -> None:
    tools = say(lambda client: client.list_tools()).tools
    assert [tool.name for tool in tools] == [*READING, "remember", "forget"]
    for tool in tools:
        assert tool.annotations.read_only_hint == (tool.name in READING)
        assert tool.annotations.destructive_hint == (tool.name not in READING)
        assert tool.input_schema["additionalProperties"] is False


def test_search_and_fetch_have_the_schemas_of_connectors(say: Callable[[Talk], Any]) -> None:
    tools = {tool.name: tool for tool in say(lambda client: client.list_tools()).tools}
    search, fetch = tools["search"], tools["fetch"]
    assert {*search.input_schema["properties"]} == {*search.input_schema["required"]} == {"query"}
    assert {*fetch.input_schema["properties"]} == {*fetch.input_schema["required"]} == {"id"}
    found = called(say, "search", query="ferry")
    assert found.structured_content == json.loads(found.content[0].text)
    assert [*found.structured_content] == ["results"]
    assert {*found.structured_content["results"][0]} == {"id", "title", "url"}
    fetched = called(say, "fetch", id=found.structured_content["results"][0]["id"])
    assert fetched.structured_content == json.loads(fetched.content[0].text)
    assert {*fetched.structured_content} == {"id", "title", "text", "url", "metadata"}


def test_without_an_overlay_there_is_nothing_that_writes(desk: Desk) -> None:
    async def talk(client: Any) -> None:
        assert [tool.name for tool in (await client.list_tools()).tools] == READING
        assert (await client.call_tool("remember", {"text": "x"})).is_error
        prompts = (await client.list_prompts()).prompts
        assert [prompt.name for prompt in prompts] == ["answer-from-memory"]

    conversation(Desk(desk.memory), talk)


def test_what_a_client_remembers_carries_its_name(say: Callable[[Talk], Any], desk: Desk) -> None:
    kept = called(say, "remember", text="Ada sails.", type="preference", subject="Ada", tags=["a"])
    record_id = kept.structured_content["id"]
    assert desk.fetch(record_id)["metadata"]["author"] == "tester 7"
    assert called(say, "forget", id=record_id).structured_content["forgotten"]
    assert called(say, "forget", id=record_id).is_error


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("search", {}, "required"),
        ("search", {"query": ""}, "minLength"),
        ("search", {"query": "x" * 1001}, "maxLength"),
        ("search", {"query": 7}, "type"),
        ("search", {"query": "x", "limit": 5}, "additionalProperties"),
        ("read", {"ids": ["x"] * 21}, "maxItems"),
        ("read", {"ids": []}, "minItems"),
        ("context", {"question": "x", "budget_tokens": 10**9}, "maximum"),
        ("fetch", {"id": "absent"}, "no record"),
        ("remember", {"text": "x", "type": "nonsense"}, "type 'nonsense' is unknown"),
        ("remember", {"text": "x", "valid_to": "tomorrow"}, "valid_to"),
        ("nonsense", {}, "no tool"),
    ],
)
def test_wrong_arguments_are_answered_with_what_is_wrong(
    desk: Desk, tool: str, arguments: dict, why: str
) -> None:
    answer = conversation(desk, lambda client: client.call_tool(tool, arguments))
    assert answer.is_error
    assert why in answer.content[0].text
    assert "hint: " in answer.content[0].text


def test_an_unexpected_failure_tells_the_agent_nothing_of_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("/secret/place")

    monkeypatch.setattr(MountedMemory, "search", fails)
    answer = conversation(desk, lambda client: client.call_tool("search", {"query": "x"}))
    assert answer.is_error
    assert "secret" not in answer.content[0].text
    assert "/secret/place" in caplog.text


def test_cubes_and_records_are_resources(say: Callable[[Talk], Any]) -> None:
    async def talk(client: Any) -> None:
        listed = (await client.list_resources()).resources
        assert [resource.name for resource in listed] == ["own", HANDBOOK]
        (described,) = (await client.read_resource(listed[1].uri)).contents
        assert json.loads(described.text)["cube"] == HANDBOOK
        (template,) = (await client.list_resource_templates()).resource_templates
        uri = mcp.UriTemplate.parse(template.uri_template).expand({"cube": HANDBOOK, "id": "ferry"})
        (record,) = (await client.read_resource(uri)).contents
        assert "The ferry leaves at nine." in record.text
        for absent in ("memcube://record/x/y", "memcube://cube/x", "file:///etc/passwd"):
            with pytest.raises(mcp.MCPError):
                await client.read_resource(absent)

    say(talk)


def test_prompts_bring_memories_along(say: Callable[[Talk], Any]) -> None:
    async def talk(client: Any) -> None:
        names = [prompt.name for prompt in (await client.list_prompts()).prompts]
        assert names == ["answer-from-memory", "keep-what-matters"]
        prompt = await client.get_prompt("answer-from-memory", {"question": "When is the ferry?"})
        assert "The ferry leaves at nine." in prompt.messages[0].content.text
        assert (await client.get_prompt("keep-what-matters")).messages
        for name, arguments in [
            ("nonsense", {}),
            ("answer-from-memory", {}),
            ("answer-from-memory", {"question": "x" * 1001}),
            ("keep-what-matters", {"question": "x"}),
        ]:
            with pytest.raises(mcp.MCPError):
                await client.get_prompt(name, arguments)

    say(talk)
