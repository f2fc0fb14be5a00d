"""The code and commands of the guide "Make a cube from your agent" run, in their order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from memcube_protocol.activation import KvManifest
from memcube_protocol.errors import EXIT_INVALID, EXIT_USAGE
from support.machine import Machine
from support.models import model_of, tokenizer_of

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")
pytest.importorskip("jinja2")
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")

GUIDE = (Path(__file__).parents[2] / "docs/guide/make-a-cube-from-your-agent.md").read_text("utf-8")
TEMPLATE = (
    "{% for m in messages %}w1 {{ m.role }} {{ m.content }} w2 {% endfor %}"
    "{% if add_generation_prompt %}w1 {% endif %}"
)


def test_the_guide_makes_a_cube_of_everything_that_it_names(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = tokenizer_of()
    tokenizer.chat_template = TEMPLATE
    base = model_of()
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    given: dict[str, Any] = {
        "model": model_of(),
        "tokenizer": tokenizer,
        "peft_model": peft.get_peft_model(base, config),
    }
    blocks = re.findall(r"^```python\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 7
    for block in blocks:
        exec(compile(block, "guide", "exec"), given)
    assert "SelfCheck(divergence=" in capsys.readouterr().out
    commands = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
    machine = Machine(tmp_path / "home", "http://127.0.0.1:9")
    for command in "".join(commands).splitlines():
        machine.ok(*command.split()[1:])
    held = sorted(path.name for path in (tmp_path / "agent" / "activation").iterdir())
    assert held == ["handbook", "monday", "now"]
    assert (tmp_path / "agent" / "parametric" / "style").is_dir()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """The folder of a model and a tokenizer with a chat template."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tokenizer = tokenizer_of()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    model_of().save_pretrained(folder)
    return folder


def test_a_chat_is_dumped_from_a_file(checkpoint, tmp_path) -> None:
    machine, chat = Machine(tmp_path / "home", "http://127.0.0.1:9"), tmp_path / "chat.json"
    chat.write_text('[{"role": "user", "content": "w5 w6"}]')
    words = ("dump", tmp_path / "agent", "monday", "--model", checkpoint, "--chat", chat)
    assert "Dumped the KV cache monday" in machine.ok(*words)
    manifest = (tmp_path / "agent" / "activation" / "monday" / "manifest.json").read_bytes()
    assert KvManifest.parse(manifest).source.text == "w1 user w5 w6 w2 "


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("[]", EXIT_INVALID),
        ('{"role": "user"}', EXIT_INVALID),
        ("no JSON", EXIT_INVALID),
        ('[{"role": "user", "content": "w5 <unk>"}]', EXIT_INVALID),
    ],
)
def test_what_is_no_chat_is_refused_with_a_hint(content, code, checkpoint, tmp_path) -> None:
    machine, chat = Machine(tmp_path / "home", "http://127.0.0.1:9"), tmp_path / "chat.json"
    chat.write_text(content)
    machine.fails(code, "dump", tmp_path / "agent", "m", "--model", checkpoint, "--chat", chat)
    assert not (tmp_path / "agent" / "activation").exists()


def test_one_source_is_given(checkpoint, tmp_path) -> None:
    machine, chat = Machine(tmp_path / "home", "http://127.0.0.1:9"), tmp_path / "chat.json"
    chat.write_text("[]")
    for more in ((), ("--chat", chat), ("--model", checkpoint, "--chat", chat, "--text", chat)):
        assert machine.run("dump", tmp_path / "agent", "m", *more).returncode == EXIT_USAGE
