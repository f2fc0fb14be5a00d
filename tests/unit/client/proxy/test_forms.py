"""Where memory goes in each form of request, and that the beginning of a prompt never changes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memcube.proxy.addition import Addition
from memcube.proxy.forms import FORMS, PROMPTS, QUESTION_CHARS, chat, completion, responses
from memcube_protocol.errors import InvalidRequestError, LimitExceededError
from support.attempts import attempt

PREFIX = "<memories-1>\nThe handbook.\n</memories-1>"
FIELDS = ("messages", "prompt", "input", "instructions")
asked: list[str] = []


def look_up(question: str) -> str:
    asked.append(question)
    return f"RECORDS[{question}]" if "nothing" not in question else ""


ADDITION = Addition(PREFIX, look_up)


@pytest.fixture(autouse=True)
def nothing_asked() -> None:
    asked.clear()


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_a_chat_begins_with_the_prefix_and_the_last_question_has_its_records() -> None:
    request = {
        "model": "m",
        "messages": [message("user", "a"), message("assistant", "b"), message("user", "c")],
    }
    before = copy.deepcopy(request)
    assert chat(request, ADDITION) == {
        "model": "m",
        "messages": [
            message("system", PREFIX),
            message("user", "a"),
            message("assistant", "b"),
            message("user", "RECORDS[c]\n\nc"),
        ],
    }
    assert request == before
    assert asked == ["c"]


@pytest.mark.parametrize("role", ["system", "developer"])
def test_a_system_message_of_the_callers_own_follows_the_prefix(role: str) -> None:
    made = chat({"messages": [message(role, "Be brief."), message("user", "a")]}, ADDITION)
    assert made["messages"][0] == message(role, f"{PREFIX}\n\nBe brief.")
    parts = [{"type": "text", "text": "Be brief."}]
    made = chat({"messages": [message(role, parts), message("user", "a")]}, ADDITION)
    assert made["messages"][0]["content"] == [{"type": "text", "text": f"{PREFIX}\n\n"}, *parts]


def test_a_question_in_parts_keeps_its_pictures() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    parts = [{"type": "text", "text": "What is"}, picture, {"type": "text", "text": "this?"}]
    made = chat({"messages": [message("user", parts)]}, ADDITION)
    records, *rest = made["messages"][1]["content"]
    assert records == {"type": "text", "text": "RECORDS[What is\nthis?]\n\n"}
    assert rest == parts


def test_while_tools_are_called_the_prompt_keeps_its_beginning() -> None:
    first = chat({"messages": [message("user", "a")]}, ADDITION)["messages"]
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}
    result = {"role": "tool", "tool_call_id": "1", "content": "42"}
    second = chat({"messages": [message("user", "a"), call, result]}, ADDITION)["messages"]
    assert second[: len(first)] == first
    assert second[len(first) :] == [call, result]


def test_what_finds_no_records_is_only_given_the_prefix() -> None:
    request = {"messages": [message("user", "nothing")]}
    assert chat(request, ADDITION)["messages"] == [message("system", PREFIX), *request["messages"]]
    assert chat(request, Addition("", look_up)) == request
    assert chat({"messages": [message("user", "  ")]}, Addition("", look_up))["messages"]
    assert asked == ["nothing", "nothing"]


def test_responses_take_the_prefix_as_instructions() -> None:
    made = responses({"input": "q", "instructions": "Be brief."}, ADDITION)
    assert made == {"input": "RECORDS[q]\n\nq", "instructions": f"{PREFIX}\n\nBe brief."}
    items = [message("user", "a"), {"type": "function_call_output", "output": "42"}]
    made = responses({"input": items, "previous_response_id": "r"}, ADDITION)
    assert made["instructions"] == PREFIX
    assert made["input"] == [message("user", "RECORDS[a]\n\na"), items[1]]
    part = {"type": "input_text", "text": "a"}
    made = responses({"input": [message("user", [part])]}, ADDITION)
    assert made["input"][0]["content"] == [
        {"type": "input_text", "text": "RECORDS[a]\n\n"},
        part,
    ]
    assert responses({"prompt": {"id": "p"}}, Addition("", look_up)) == {"prompt": {"id": "p"}}


def test_each_of_several_prompts_gets_its_own_records() -> None:
    made = completion({"prompt": ["a", "b"]}, ADDITION)["prompt"]
    assert made == [f"{PREFIX}\n\nRECORDS[a]\n\na", f"{PREFIX}\n\nRECORDS[b]\n\nb"]
    assert completion({"prompt": "a"}, ADDITION) == {"prompt": made[0]}


def test_so_many_prompts_that_others_would_wait_for_hours_are_refused() -> None:
    with pytest.raises(LimitExceededError):
        completion({"prompt": ["a"] * (PROMPTS + 1)}, ADDITION)
    assert asked == []


def test_of_a_long_question_the_end_is_looked_up() -> None:
    chat({"messages": [message("user", "x" * QUESTION_CHARS + "the question")]}, ADDITION)
    assert len(asked[0]) == QUESTION_CHARS
    assert asked[0].endswith("the question")


@pytest.mark.parametrize(
    ("place", "request_body"),
    [
        ("chat/completions", {}),
        ("chat/completions", {"messages": "hello"}),
        ("chat/completions", {"messages": ["hello"]}),
        ("chat/completions", {"messages": [{"role": "system", "content": 7}]}),
        ("completions", {}),
        ("completions", {"prompt": []}),
        ("completions", {"prompt": [1, 2, 3]}),
        ("responses", {"input": {"role": "user"}}),
        ("responses", {"input": "q", "instructions": ["x"]}),
    ],
)
def test_what_the_api_does_not_take_is_refused(place: str, request_body: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError):
        FORMS[place](request_body, ADDITION)


WORDS = st.text(max_size=8)
PARTS = st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": WORDS}), max_size=2)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
            "content": WORDS | PARTS | st.none(),
        }
    ),
    max_size=4,
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@given(MESSAGES, st.dictionaries(st.sampled_from(["model", "tools", "stream"]), ANYTHING))
def test_a_chat_is_the_callers_own_with_texts_put_before_it(
    messages: list[dict[str, Any]], more: dict[str, Any]
) -> None:
    made = chat({**more, "messages": messages}, ADDITION)
    assert {name: value for name, value in made.items() if name != "messages"} == more
    grown = made["messages"][-len(messages) :] if messages else []
    assert len(made["messages"]) - len(messages) in (0, 1)
    for own, now in zip(messages, grown, strict=True):
        assert own["role"] == now["role"]
        if isinstance(own["content"], list):
            assert now["content"][-len(own["content"]) :] == own["content"] or not own["content"]
        elif own["content"]:
            assert now["content"].endswith(own["content"])
    assert str(made["messages"][0]["content"]).count(PREFIX.partition("\n")[0]) == 1


@given(st.sampled_from(sorted(FORMS)), st.dictionaries(st.sampled_from(FIELDS), ANYTHING))
def test_whatever_stands_in_a_request_it_is_passed_on_or_refused(
    place: str, request_body: dict[str, Any]
) -> None:
    before = copy.deepcopy(request_body)
    made = attempt(lambda: FORMS[place](request_body, ADDITION))
    assert isinstance(made, InvalidRequestError) or set(before) <= set(made)
    assert request_body == before
