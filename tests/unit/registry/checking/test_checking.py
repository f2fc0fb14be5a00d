"""The consistency check finds every kind of damage, and nothing where there is none."""

from pathlib import Path

import pytest
from memcube_protocol.digest import Digest
from memcube_registry.checking.command import shown
from memcube_registry.checking.content import Sample
from memcube_registry.checking.findings import LISTED_MAX, Findings, Report, Rule, Weight
from memcube_registry.checking.service import Thoroughness, check
from memcube_registry.database import Database
from memcube_registry.log import witnesses
from memcube_registry.log.models import LogWitness
from memcube_registry.log.service import TransparencyLog
from memcube_registry.log.submission import Submission
from memcube_registry.storage import LocalFiles
from memcube_signing.bundle import sign
from memcube_signing.statement import Statement
from memcube_signing.transparency import checkpoint
from sqlalchemy import text
from support.log import Log
from support.registry_core import Core
from support.signing import ALICE, manifest

NAME = "alice/notes"
LAYERS = [b"first layer", b"", b"third layer" * 1000]
ALL = Thoroughness(Sample(None, 0))


@pytest.fixture
def core(database: Database, tmp_path: Path) -> Core:
    made = Core(database, LocalFiles(tmp_path / "blobs"))
    made.principal = made.person("alice")
    for layer in LAYERS:
        made.push_blob(NAME, layer)
    child = made.push_manifest(NAME, LAYERS, "latest")
    made.push_manifest(NAME, [], subject=child)
    made.push_index(NAME, [child], "all")
    return made


@pytest.fixture
def log(database: Database) -> TransparencyLog:
    """A log that fills a tile and begins another."""
    made = TransparencyLog(database, b"\x07" * 32, "log.example", witnesses.parse(""))
    made.add_all([submission(number) for number in range(300)])
    return made


def submission(number: int) -> Submission:
    said = Statement("cube", manifest("one").digest, "https://example.org/test", {"n": number})
    return Submission(NAME, sign(said, ALICE).envelope, ALICE.public_key)


def checked(core: Core, how: Thoroughness = ALL) -> Report:
    return check(core.database, core.store, how, core.now)


def rules(report: Report) -> set[Rule]:
    return {finding.rule for finding in report.findings}


def change(core: Core, *statements: str) -> None:
    """Damage the rows, as no service would. `BYTES` stands for other bytes than there were."""
    other = "x'7b7d'" if core.database.is_sqlite else r"'\x7b7d'"
    with core.database.engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        if core.database.is_sqlite:
            driver.execute("PRAGMA foreign_keys = OFF")
        for statement in statements:
            driver.execute(statement.replace("BYTES", other))
        driver.commit()


def blob_file(core: Core, content: bytes) -> Path:
    with core.database.read() as session:
        query = text("SELECT location FROM blob WHERE digest = :digest")
        location = session.connection().execute(query, {"digest": str(Digest.of(content))})
        name = str(location.scalar_one())
    assert isinstance(core.store, LocalFiles)
    return core.store._object(name)


def test_a_registry_that_is_whole_has_no_findings(core: Core, log: TransparencyLog) -> None:
    report = checked(core, Thoroughness(Sample(None, 0), log_key=log.key, seen=log.checkpoint()))
    assert report.findings == ()
    assert report.checked == {
        "manifests": 3,
        "tags": 2,
        "accounts": 1,
        "log_tiles": 3,
        "log_entries": 300,
        "objects": 4,
        "blobs": 4,
        "blobs_read": 4,
        "bytes": sum(map(len, LAYERS)) + len(b"{}"),
    }


def test_a_blob_that_is_gone_is_found(core: Core) -> None:
    blob_file(core, LAYERS[0]).unlink()
    report = checked(core)
    assert rules(report) == {Rule.BLOB_MISSING}
    assert report.findings[0].what == str(Digest.of(LAYERS[0]))
    assert report.damage == 1


@pytest.mark.parametrize("damage", [b"short", b"a longer layer", b""])
def test_a_blob_of_another_size_is_found_without_reading_it(core: Core, damage: bytes) -> None:
    path = blob_file(core, LAYERS[0])
    path.chmod(0o600)
    path.write_bytes(damage)
    report = checked(core, Thoroughness(Sample(0, 0)))
    assert rules(report) == {Rule.BLOB_SIZE}
    assert "bytes" not in report.checked


def test_a_flipped_bit_is_found_by_reading(core: Core) -> None:
    path = blob_file(core, LAYERS[2])
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    assert checked(core, Thoroughness(Sample(0, 0))).findings == ()
    assert rules(checked(core)) == {Rule.BLOB_DIGEST}


def test_a_seed_draws_the_same_blobs_again(core: Core) -> None:
    for number in range(30):
        core.push_blob(NAME, b"%d" % number)
    draws = [Sample(10, seed).drawn(34) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    report = checked(core, Thoroughness(Sample(10, 1)))
    assert (report.checked["blobs_read"], report.seed) == (10, 1)
    assert "  1  seed of the draw" in shown(report)


@pytest.mark.parametrize("count", [None, 4])
def test_where_every_blob_is_read_no_seed_is_told(core: Core, count: int | None) -> None:
    report = checked(core, Thoroughness(Sample(count, 1)))
    assert (report.checked["blobs_read"], report.seed) == (4, None)
    assert "seed" not in shown(report)


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("UPDATE manifest SET content = BYTES WHERE id = 1", Rule.MANIFEST_BYTES),
        ("UPDATE manifest SET media_type = 'text/plain' WHERE id = 1", Rule.MANIFEST_BYTES),
        ("UPDATE manifest SET subject_digest = NULL", Rule.MANIFEST_FIELDS),
        ('UPDATE manifest SET "commit" = substr("commit", 1, 39) || \'g\'', Rule.MANIFEST_FIELDS),
        ("DELETE FROM manifest_blob WHERE manifest_id = 1", Rule.MANIFEST_BLOBS),
        ("DELETE FROM blob_link", Rule.MANIFEST_BLOBS),
        ("UPDATE blob SET size_bytes = 3 WHERE id = 1", Rule.MANIFEST_BLOBS),
        ("DELETE FROM manifest_child", Rule.MANIFEST_CHILDREN),
        ("UPDATE account SET used_bytes = used_bytes + 1", Rule.USAGE),
    ],
)
def test_rows_that_do_not_fit_are_found(core: Core, statement: str, rule: Rule) -> None:
    change(core, statement)
    assert rule in rules(checked(core))


def test_rows_that_name_nothing_are_found(core: Core) -> None:
    if not core.database.is_sqlite:
        pytest.skip("PostgreSQL does not let a row name nothing")
    change(core, "UPDATE tag SET manifest_id = 99 WHERE name = 'latest'")
    change(core, "UPDATE manifest_child SET child_digest = 'sha256:none'")
    found = rules(checked(core))
    assert {Rule.TAG, Rule.DATABASE, Rule.MANIFEST_CHILDREN} <= found


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("DELETE FROM log_entry WHERE number = 7", Rule.LOG_ENTRIES),
        ("DELETE FROM log_entry WHERE number >= 290", Rule.LOG_ENTRIES),
        ("UPDATE log_entry SET body = name_tag WHERE number = 7", Rule.LOG_ENTRIES),
        ("UPDATE log_tile SET hashes = BYTES WHERE level = 1", Rule.LOG_TILES),
        ("UPDATE log_state SET note = 'x'", Rule.LOG_CHECKPOINT),
        ("UPDATE log_state SET origin = 'other.example'", Rule.LOG_CHECKPOINT),
        ("UPDATE log_state SET size = 299", Rule.LOG_CHECKPOINT),
        ("UPDATE log_state SET size = 299", Rule.LOG_SEEN),
        ("UPDATE log_usage SET size_bytes = size_bytes + 1", Rule.USAGE),
        ("DELETE FROM log_usage", Rule.USAGE),
        ("INSERT INTO log_usage VALUES ('bob', 7)", Rule.USAGE),
    ],
)
def test_damage_to_the_log_is_found(
    core: Core, log: TransparencyLog, statement: str, rule: Rule
) -> None:
    change(core, statement)
    report = checked(core, Thoroughness(Sample(None, 0), log_key=log.key))
    assert rule in rules(report)


def test_a_log_that_went_back_behind_what_it_has_shown_is_found(
    core: Core, log: TransparencyLog
) -> None:
    before = log.checkpoint()
    log.add(submission(1000))
    for seen, found in ((before, set()), (log.checkpoint(), set())):
        assert rules(checked(core, Thoroughness(ALL.sample, log_key=log.key, seen=seen))) == found
    key = Log(origin=log.key.name).key
    forked = Log(origin=log.key.name, leaves=[b"another"] * 20).note()
    longer = Log(origin=log.key.name, leaves=[b"another"] * 400).note()
    for seen in (forked, longer):
        report = checked(core, Thoroughness(ALL.sample, log_key=key, seen=seen))
        assert Rule.LOG_SEEN in rules(report)
    with core.database.write() as session:
        session.add(LogWitness(name="witness.example", size=500))
    assert rules(checked(core)) == {Rule.LOG_SEEN}


def test_a_checkpoint_of_another_log_is_none_of_its_own(core: Core, log: TransparencyLog) -> None:
    other = Log(origin="other.example").note()
    report = checked(core, Thoroughness(ALL.sample, log_key=log.key, seen=other))
    assert rules(report) == {Rule.LOG_SEEN}
    assert checkpoint.verify(log.checkpoint(), log.key).size == 300


def test_leftovers_are_told_and_are_no_damage(core: Core) -> None:
    store = core.store
    for name in ("a" * 32, "b" * 32):
        sink = store.open(name, size=0)
        sink.write([b"left"])
        sink.close()
    store.finish("a" * 32, size=4)
    report = checked(core)
    assert rules(report) == {Rule.ORPHAN_OBJECT, Rule.ORPHAN_UPLOAD}
    assert (report.damage, report.leftovers) == (0, 2)
    core.wait(days=3)
    core.collect()
    assert checked(core).findings == ()


def test_what_is_young_may_belong_to_a_push_that_runs(core: Core) -> None:
    sink = core.store.open("a" * 32, size=0)
    sink.write([b"coming"])
    sink.close()
    from memcube_registry.database import utc_now

    assert check(core.database, core.store, ALL, utc_now()).findings == ()


def test_a_blob_that_is_collected_during_the_check_is_no_finding(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    core.push_blob(NAME, b"unused")
    read = core.store.read

    def collected_first(location: str, **where: int) -> object:
        core.collect_all()
        return read(location, **where)

    monkeypatch.setattr(core.store, "read", collected_first)
    assert checked(core).damage == 0


def test_findings_are_counted_beyond_those_that_are_listed() -> None:
    findings = Findings()
    for number in range(LISTED_MAX + 5):
        findings.add(Rule.USAGE, str(number), "x")
    report = findings.report(0)
    assert (report.damage, len(report.findings)) == (LISTED_MAX + 5, LISTED_MAX)
    assert report.to_json()["counts"] == {"usage": LISTED_MAX + 5}


@pytest.mark.parametrize("rule", Rule)
def test_every_rule_is_documented(rule: Rule) -> None:
    guide = Path(__file__).parents[4] / "docs" / "guide" / "check-and-back-up.md"
    assert f"| `{rule}` | {rule.weight} |" in guide.read_text(encoding="utf-8")
    assert rule.weight in Weight
