"""The demo: a real cube travels from a publisher to a consumer, and a damaged one is refused.

A registry of its own runs in a temporary folder. The publisher trains a small model, packs plaintext,
a LoRA and a KV cache for it, signs and pushes; somebody else logs in, pulls, verifies, mounts and
asks. Nothing is left behind.
"""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from memcube_protocol import media_types
from memcube_protocol.errors import DigestMismatchError, IncompatibleError, MemcubeError
from memcube_protocol.records import Record, write_record

from memcube.client import Client
from memcube.demo import corpus
from memcube.demo import model as small
from memcube.demo.server import DemoRegistry
from memcube.demo.story import Step, Story
from memcube.figures import bytes_text, table_text
from memcube.memories.activation.generation import generate
from memcube.publishing.visibility import Visibility, set_visibility
from memcube.settings import Endpoint, Settings
from memcube.trust import KeyStore

if TYPE_CHECKING:
    from memcube.consuming.verifying import Verified

CUBE: Final = "alice/expert"
VERSION: Final = "1.0.0"
_RELEASE: Final = f"{CUBE}:{VERSION}"
_PROFILE_SEED: Final = 7
_OTHER_SEED: Final = 1
_PASSPHRASE: Final = "of the demo only"  # its key lives as long as the demo
_SAMPLE: Final = 50
_MANIFEST: Final = f"""\
name = "{CUBE}"
version = "{VERSION}"
title = "An expert's memory"
summary = "Help pages as text, and what a user told: half as a KV cache, half as a LoRA."

[governance]
licence = "CC-BY-4.0"
"""
_NEXT: Final = """\
Try next:
  memcube serve                        a registry of your own
  memcube-registry account create me   an account, then a token for it:
  memcube-registry token create me
  memcube login --token-stdin          paste the token
  memcube init notes                   a folder to edit
  memcube push notes                   signed and published
  memcube mount me/notes --ask "…"     verified and searched"""


def run(pages: Path | None = None, stream: TextIO | None = None) -> dict[str, Any]:
    """Play the demo, telling it on `stream` (stderr), and say its figures.

    `pages` is a gzipped file of tldr pages to publish as plaintext instead of the handbook that
    comes with memcube.

    Raises:
        MissingDependencyError: the registry, torch or the search engine is not installed.
        MemcubeError: a step failed; the demo is also a test.
    """
    story = Story(stream)
    with tempfile.TemporaryDirectory(prefix="memcube-demo-") as name, _quiet():
        Journey(Path(name), story, pages).play()
    return {"seconds": story.elapsed_s, "steps": story.steps}


@contextmanager
def _quiet() -> Iterator[None]:
    """The libraries below us without their own progress bars and notes on future versions."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Journey:
    """The acts of the demo; each needs those before it. Everything lies in `folder`."""

    def __init__(self, folder: Path, story: Story, pages: Path | None) -> None:
        self._folder = folder
        self._story = story
        self._pages = pages
        self._profile = small.make_profile(_PROFILE_SEED)

    def play(self) -> None:
        """All acts, in order."""
        with self._story.step(
            "A registry starts: SQLite and local files, a process of its own"
        ) as step:
            registry = DemoRegistry(self._folder / "registry").__enter__()
            tokens = {name: registry.create_account(name, *scopes) for name, scopes in _ACCOUNTS}
            step.say(f"{registry.url}, accounts: {', '.join(tokens)}")
        try:
            self._train()
            self._pack()
            with self._client("alice", registry.url, tokens["alice"]) as alice:
                self._publish(alice)
            with self._client("bob", registry.url, tokens["bob"]) as bob:
                verified = self._consume(bob)
                self._ask(bob)
                self._refuse_another_model(bob)
            with self._client("carol", registry.url, tokens["carol"]) as carol:
                self._damage(registry, carol, verified)
        finally:
            registry.__exit__(None, None, None)
        self._story.tell(_NEXT)

    def _client(self, name: str, url: str, token: str) -> Client:
        """The client of one person, with a home of its own and logged in."""
        scheme, _, host = url.partition("://")
        settings = Settings(self._folder / name, Endpoint(scheme, host), keyring=False)
        client = Client(settings, progress=self._story.count)
        client.context.keys = KeyStore.of(settings, {"MEMCUBE_KEY_PASSPHRASE": _PASSPHRASE})
        client.login(token)
        return client

    def _train(self) -> None:
        with self._story.step(
            "A small language model learns to read facts from its context"
        ) as step:
            self._model, self._tokenizer = small.train_model()
            small.save_model(self._model, self._tokenizer, self._folder / "model")
            parameters = sum(tensor.numel() for tensor in self._model.parameters())
            step.say(f"{parameters:,} parameters, trained from nothing on made-up users")

    def _pack(self) -> None:
        from memcube.memories.activation.dump import dump_kv
        from memcube.memories.parametric.mount import mount_lora

        cube = self._folder / "expert"
        with self._story.step("Alice makes a cube of three memories") as step:
            (cube / "plaintext").mkdir(parents=True)
            (cube / "memcube.toml").write_text(_MANIFEST, "utf-8")
            (cube / "README.md").write_text("# An expert's memory\n", "utf-8")
            records = self._write_records(cube / "plaintext" / "pages.jsonl")
            step.say(f"plaintext   {records:,} records")
            lora = small.teach_adapter(
                self._model,
                self._tokenizer,
                self._profile,
                small.LORA_ATTRIBUTES,
                folder=cube,
                memory_id="habits",
            )
            step.say(f"parametric  a LoRA that knows {', '.join(small.LORA_ATTRIBUTES)}")
            text = small.facts(self._profile, small.KV_ATTRIBUTES)
            with mount_lora(lora, self._model):
                dump_kv(
                    self._model,
                    self._tokenizer,
                    text=text,
                    folder=cube,
                    memory_id="profile",
                    cube_adapters=("habits",),
                )
            step.say(f"activation  a KV cache of: {text}")

    def _write_records(self, path: Path) -> int:
        self._sample = random.Random(0).sample(list(self._records()), _SAMPLE)  # noqa: S311
        with path.open("wb") as file:
            return sum(bool(file.write(write_record(record) + b"\n")) for record in self._records())

    def _records(self) -> Iterator[Record]:
        return corpus.tldr_records(self._pages) if self._pages else corpus.handbook()

    def _publish(self, alice: Client) -> None:
        with self._story.step(
            "Alice signs it and pushes it: blobs, manifest, signature, tags last"
        ) as step:
            published = alice.push(self._folder / "expert")
            step.say(f"{published.reference}@{published.cube.digest}")
            step.say(f"{bytes_text(published.cube.size)}, signed by key {published.key_id}")
            step.say(f"tags: {', '.join(published.tags)}")
            set_visibility(alice.context, published.reference, Visibility.PUBLIC)
            step.say("public: everybody may read it")
        with self._story.step("Alice pushes it again: nothing has changed") as step:
            step.say("no bytes sent" if alice.push(self._folder / "expert").unchanged else "sent?")

    def _consume(self, bob: Client) -> Verified:
        with self._story.step("Bob logs in, pulls by tag, and the cube is verified") as step:
            verified = bob.pull(_RELEASE)
            for rule in verified.verdict.rules:
                step.say(f"{rule.outcome.value:>9}  {rule.rule:<10} {rule.detail}")
        return verified

    def _ask(self, bob: Client) -> None:
        model, tokenizer = small.load_model(self._folder / "model")
        with self._story.step(
            "Bob mounts it into the same model and asks what the user told"
        ) as step:
            without = self._recall(partial(generate, model, tokenizer, max_new_tokens=1))
            rows = [("nothing", without)]
            for title, kinds in _MOUNTS:
                filters = [f"kind={kind}" for kind in kinds]
                with bob.mount(
                    _RELEASE, model=model, tokenizer=tokenizer, filters=filters
                ) as memory:
                    answer = partial(memory.generate, context="", max_new_tokens=1)
                    rows.append((title, self._recall(answer)))
            self._tell_recall(step, rows)
            again = self._recall(partial(generate, model, tokenizer, max_new_tokens=1))
            step.say(f"unmounted: {'the model knows what it knew' if again == without else 'no!'}")
        with self._story.step("Bob searches the records, with no model at all") as step:
            with bob.mount(_RELEASE) as memory:
                found = sum(self._finds(memory, record) for record in self._sample)
                best = memory.search(self._sample[0].text.partition("\n")[0], 1)
            step.say(
                f"{found} of {_SAMPLE} sampled records are among the first five hits for their"
            )
            step.say("own first dozen words; the first sample:")
            step.lines += [f"  {line}" for line in best[0].record.text.splitlines()[:4]]
            step.facts["found"] = found / _SAMPLE

    def _recall(self, answer: Callable[[str], str]) -> small.Recall:
        return small.recall(self._profile, answer)

    def _finds(self, memory: Any, record: Record) -> bool:
        query = " ".join(record.text.split()[:12])
        return any(hit.record.id == record.id for hit in memory.search(query, limit=5))

    def _tell_recall(self, step: Step, rows: list[tuple[str, small.Recall]]) -> None:
        cells = [["mounted", "facts in the KV", "facts in the LoRA", "all"]]
        for title, recall in rows:
            pairs = (recall.activation, recall.parametric)
            right = [f"{right} of {asked}" for right, asked in pairs]
            cells.append([title, *right, f"{recall.share:.0%}"])
            step.facts[title] = recall.share
        for line in table_text(cells).splitlines():
            step.say(line)

    def _refuse_another_model(self, bob: Client) -> None:
        with self._story.step("Bob tries it on another model of the same shape") as step:
            other = small.make_model(_OTHER_SEED)
            error = _refusal(
                lambda: bob.mount(
                    _RELEASE, model=other, tokenizer=self._tokenizer, filters=("kind=activation",)
                ),
                IncompatibleError,
            )
            step.say(f"refused ({error.code}): {str(error)[:300]}")
            step.facts["refused"] = error.code

    def _damage(self, registry: DemoRegistry, carol: Client, verified: Verified) -> None:
        with self._story.step(
            "One byte of a blob flips on the registry's disk, and Carol pulls"
        ) as step:
            layer = next(f for f in verified.cube.files if f.media_type == media_types.LORA)
            path = registry.blob_file(layer.digest)
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
            error = _refusal(lambda: carol.pull(_RELEASE), DigestMismatchError)
            step.say(f"refused ({error.code}): {error}")
            step.say(f"Carol's store holds {len(carol.ls())} cubes")
            step.facts["refused"] = error.code


_MOUNTS: Final = (
    ("LoRA", ("parametric",)),
    ("LoRA and KV", ("parametric", "activation")),
)
_ACCOUNTS: Final = (("alice", ("pull", "push")), ("bob", ("pull",)), ("carol", ("pull",)))


def _refusal(act: Any, wanted: type[MemcubeError]) -> MemcubeError:
    """The error with which `act` must end."""
    try:
        act()
    except wanted as error:
        return error
    raise AssertionError(f"{wanted.__name__} was expected, and nothing was refused")
