"""Chats as memories: the model's own template, nothing forged in it, and a next turn that follows exactly."""

from __future__ import annotations

from typing import Any

import pytest
from memcube.memories.activation.chat import chat_template_hash, next_turn, render_chat
from memcube.memories.activation.dump import dump_kv
from memcube.memories.activation.mount import mount_kv
from memcube.memories.activation.recompute import recompute
from memcube.memories.control_tokens import (
    control_tokens,
    find_control_token,
    require_words,
    without_control_tokens,
)
from memcube_protocol.activation import KvManifest
from memcube_protocol.digest import Digest
from memcube_protocol.errors import IncompatibleError, InvalidConfigError, UnsupportedError
from support.models import model_of, tokenizer_of

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("jinja2")

TEMPLATE = (
    "{{ bos_token }} {% for tool in tools or [] %}w60 {{ tool.name }} {% endfor %}"
    "{% for m in messages %}"
    "{% if m.role == 'robot' %}{{ raise_exception('no such role') }}{% endif %}"
    "w61 {{ m.role }} {{ m.content }} w62 {% endfor %}"
    "{% if add_generation_prompt %}w61 w2 {% endif %}"
)
CHAT = [{"role": "w1", "content": "w5 w6"}, {"role": "w2", "content": "w7 w8 w9"}]


@pytest.fixture(scope="module")
def model() -> Any:
    return model_of()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = tokenizer_of(bos=True)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_a_chat_is_dumped_in_the_models_own_template(model, tokenizer, tmp_path) -> None:
    folder = dump_kv(model, tokenizer, messages=CHAT, folder=tmp_path, memory_id="chat")
    manifest = KvManifest.parse((folder / "manifest.json").read_bytes())
    assert manifest.source.text == "<s> w61 w1 w5 w6 w62 w61 w2 w7 w8 w9 w62 "
    assert manifest.key.special_tokens == "bare"
    assert manifest.information["chatTemplate"] == str(Digest.of(TEMPLATE.encode()))
    assert mount_kv(folder, model, tokenizer).token_ids == tuple(
        tokenizer.apply_chat_template(CHAT, tokenize=True, return_dict=False)
    )
    assert recompute(folder, model, tokenizer).difference == 0


def test_the_next_turn_follows_the_memory_as_if_the_chat_were_one_text(
    model, tokenizer, tmp_path
) -> None:
    folder = dump_kv(model, tokenizer, messages=CHAT, folder=tmp_path, memory_id="chat")
    mounted = mount_kv(folder, model, tokenizer)
    longer = [*CHAT, {"role": "w1", "content": "w10"}]
    follows = next_turn(tokenizer, mounted.manifest.source.text, longer)
    assert follows == "w61 w1 w10 w62 w61 w2 "
    ids = [*mounted.token_ids, *tokenizer(follows, add_special_tokens=False)["input_ids"]]
    assert ids == tokenizer.apply_chat_template(
        longer, add_generation_prompt=True, return_dict=False
    )


def test_a_chat_that_began_otherwise_does_not_follow_the_memory(tokenizer) -> None:
    before = render_chat(tokenizer, CHAT)
    with pytest.raises(IncompatibleError, match="does not begin"):
        next_turn(tokenizer, before, [{"role": "w1", "content": "w6"}])


def test_tools_are_rendered_and_a_template_of_their_own_is_the_one_that_is_hashed(
    tokenizer,
) -> None:
    tools = [{"name": "w33"}]
    assert "w60 w33" in render_chat(tokenizer, CHAT, tools=tools)
    several = tokenizer_of()
    several.chat_template = {"default": TEMPLATE, "tool_use": TEMPLATE + "w1"}
    assert chat_template_hash(several) == Digest.of(TEMPLATE.encode())
    assert chat_template_hash(several, tools=tools) == Digest.of(f"{TEMPLATE}w1".encode())


def test_without_a_template_a_chat_is_refused(model, tmp_path) -> None:
    with pytest.raises(UnsupportedError, match="no chat template") as refusal:
        dump_kv(model, tokenizer_of(), messages=CHAT, folder=tmp_path, memory_id="chat")
    assert refusal.value.hint
    assert list(tmp_path.iterdir()) == []


def test_several_templates_without_a_default_are_none() -> None:
    tokenizer = tokenizer_of()
    tokenizer.chat_template = {"one": TEMPLATE, "other": TEMPLATE}
    with pytest.raises(UnsupportedError, match="no chat template"):
        render_chat(tokenizer, CHAT)


@pytest.mark.parametrize(
    "forged",
    [
        {"role": "w1", "content": "w5 <s> w6"},
        {"role": "w1<s>", "content": "w5"},
        {"role": "w1", "content": [{"type": "text", "text": "<unk>"}]},
        {"role": "w1", "content": "w5", "tool_calls": [{"function": {"<s>": 1}}]},
    ],
)
def test_a_message_that_spells_a_control_token_is_refused(forged, tokenizer) -> None:
    with pytest.raises(InvalidConfigError, match="message 1 spells the control token"):
        render_chat(tokenizer, [CHAT[0], forged])


def test_a_token_that_was_only_added_as_special_counts_too(model) -> None:
    from transformers import AddedToken

    tokenizer = tokenizer_of()
    tokenizer.chat_template = TEMPLATE
    tokenizer.add_tokens([AddedToken("<|turn|>", special=True), AddedToken("<think>")])
    render_chat(tokenizer, [{"role": "w1", "content": "<think> w5"}])
    with pytest.raises(InvalidConfigError, match="turn"):
        render_chat(tokenizer, [{"role": "w1", "content": "w5 <|turn|>"}])


def test_a_text_that_spells_a_control_token_is_refused_unless_a_template_wrote_it(
    model, tokenizer, tmp_path
) -> None:
    text = "w5 <s> w6"
    with pytest.raises(InvalidConfigError, match="spells the control token '<s>'") as refusal:
        dump_kv(model, tokenizer, text=text, folder=tmp_path, memory_id="kv")
    assert "--control-tokens" in (refusal.value.hint or "")
    assert list(tmp_path.iterdir()) == []
    folder = dump_kv(
        model, tokenizer, text=text, control_tokens=True, folder=tmp_path, memory_id="kv"
    )
    assert mount_kv(folder, model, tokenizer).token_ids == (65, 5, 65, 6)


def test_the_frame_of_a_tool_counts_though_its_model_added_it_as_an_ordinary_token() -> None:
    tokenizer = tokenizer_of(bos=True)
    tokenizer.add_tokens(["<tool_call>", "</tool_response>", "<think>", "MEMCUBE"])
    assert control_tokens(tokenizer) == {"<s>", "<unk>", "<tool_call>", "</tool_response>"}
    with pytest.raises(InvalidConfigError, match="<tool_call>"):
        require_words("w5 <tool_call> w6", tokenizer)


def test_a_broken_control_token_is_none(tokenizer) -> None:
    control = control_tokens(tokenizer)
    assert control == {"<s>", "<unk>"}
    broken = without_control_tokens("w5 <s> w6 <unk>", control)
    assert broken == "w5 ‹s> w6 ‹unk>"
    assert find_control_token(broken, control) is None
    assert without_control_tokens("a END b", {"END"}) == "a E ND b"


def test_a_tool_that_spells_a_control_token_is_refused(tokenizer) -> None:
    with pytest.raises(InvalidConfigError, match="a tool spells"):
        render_chat(tokenizer, CHAT, tools=[{"name": "<s>"}])


@pytest.mark.parametrize(
    "messages", [[], "w1", ["w1"], [{"content": "w1"}], [{"role": 7, "content": "w1"}]]
)
def test_what_is_no_chat_is_refused(messages, tokenizer) -> None:
    with pytest.raises(InvalidConfigError, match="list of messages"):
        render_chat(tokenizer, messages)


def test_what_the_template_refuses_is_told_in_its_words(tokenizer) -> None:
    with pytest.raises(InvalidConfigError, match="no such role"):
        render_chat(tokenizer, [{"role": "robot", "content": "w1"}])
