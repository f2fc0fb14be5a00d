"""Where no model is asked, none of the libraries for models is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from memcube.building.holding import held_builds
from memcube.client import Client
from memcube.dumper import MemDumper
from memcube.memories.plaintext.index import records_of
from memcube.settings import Settings
from support.models import model_of, text_of, tokenizer_of

CODE = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = sys.modules["peft"] = None
from memcube.client import Client
from memcube.settings import Settings
from memcube.building.planning import Wanted
with Client(Settings.load({"MEMCUBE_HOME": sys.argv[1], "MEMCUBE_KEYRING": "0"})) as client:
    print(client.build("alice/cache", Wanted(kind="plaintext")).build.digest)
"""


def test_the_text_of_a_cache_is_taken_without_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    dumper = MemDumper(tmp_path / "cube", name="alice/cache", version="1.0.0")
    dumper.add_kv(model_of(), tokenizer_of(), memory_id="kv", text=text_of(9))
    environ = {"MEMCUBE_HOME": str(tmp_path / "home"), "MEMCUBE_KEYRING": "0"}
    with Client(Settings.load(environ)) as client:
        client.pack(dumper.folder)
        done = subprocess.run(
            [sys.executable, "-c", CODE, environ["MEMCUBE_HOME"]],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        cube = client.open("alice/cache").cube.digest
        (held,) = held_builds(client.context, cube)
        assert str(held.build.digest) == done.stdout.strip()
        (record,) = records_of(held.build.manifest, client.context.store)
        assert record.text == text_of(9)
