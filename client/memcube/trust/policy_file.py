"""`memcube-trust.toml`: a policy as a person writes it (docs/spec/policy.md). Unknown words are refused."""

from __future__ import annotations

import base64
import binascii
import re
import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from memcube_protocol.errors import InvalidStatementError, NotFoundError
from memcube_protocol.reference import is_host
from memcube_signing.job import SUBJECT, JobPattern
from memcube_signing.keys import PublicKey
from memcube_signing.release import require_origin
from memcube_signing.transparency.checkpoint import NoteKey
from memcube_signing.transparency.entry import Witnesses

from memcube.store.files import read_file, read_own_file
from memcube.trust.policy import (
    DEFAULT_SCOPE,
    POLICY_FILE,
    Expected,
    LogDemand,
    Pattern,
    Policy,
    Required,
    Terms,
    invalid,
)
from memcube.trust.verdict import Mode

Value = TypeVar("Value")


class Named(NamedTuple):
    """What the scopes of a policy refer to by name."""

    keys: Mapping[str, PublicKey]
    witnesses: Mapping[str, NoteKey]


ORGANISATION_FILE: Final = Path("/etc/memcube") / POLICY_FILE
_FILE_BYTES: Final = 4 * 1024 * 1024
_FORMAT: Final = 1
_TOP: Final = {
    *("format", "keys", "default", "scopes", "tests", "logs", "witnesses", "registries"),
}
_TERMS: Final = {
    *("publishers", "threshold", "attestations", "media_types", "max_staleness", "mode", "origin"),
    *("jobs", "log", "witnesses", "witness_threshold", "countersignature"),
}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([mhd])")
_UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


def load(path: Path) -> Policy:
    """The policy in the file `path`.

    Raises:
        NotFoundError: there is no such file.
        InvalidPolicyError: it breaks the format.
        StorageError: it cannot be read.
    """
    content = read_file(path, _FILE_BYTES)
    if content is None:
        raise NotFoundError(f"there is no policy {path}", hint="name a file such as " + POLICY_FILE)
    return parse(content, source=str(path))


def load_effective(home: Path, organisation: Path = ORGANISATION_FILE) -> Policy:
    """What holds for this user: the policy in `home`, below that of the organisation.

    Raises:
        InvalidPolicyError, StorageError: one of them cannot be obeyed; none is passed over.
    """
    places = (organisation, home / POLICY_FILE)
    found = [policy for path in places if (policy := _obeyed(path)) is not None]
    if not found:
        return Policy()
    *above, last = found
    if not above:
        return last
    return replace(last, above=above[0])


def _obeyed(path: Path) -> Policy | None:
    """The policy at `path`, if there is one: what lies there and cannot be read is not absent."""
    content = read_own_file(path, _FILE_BYTES, folder=False)
    return None if content is None else parse(content, source=str(path))


def parse(content: bytes, *, source: str = POLICY_FILE) -> Policy:
    """The policy that `content` holds.

    Raises:
        InvalidPolicyError: not TOML, an unknown word, or a value that breaks its rule.
    """
    try:
        value = tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"{source} is not TOML: {error}") from None
    _require_known(value, _TOP, source)
    if value.get("format") != _FORMAT or value["format"] is True:
        raise invalid(f"{source} does not begin with `format = {_FORMAT}`")
    known = Named(
        {name: _key(name, text) for name, text in _table(value, "keys").items()},
        {
            name: _note_key(name, text, cosigns=True)
            for name, text in _table(value, "witnesses").items()
        },
    )
    default = value.get("default")
    return Policy(
        tuple(
            _terms(Pattern(pattern).text, terms, known)
            for pattern, terms in _table(value, "scopes").items()
        ),
        _terms(DEFAULT_SCOPE, default, known) if default is not None else None,
        tuple(_test(test) for test in _list(value, "tests")),
        source,
        logs={
            _host("logs", host): _note_key(host, text, cosigns=False)
            for host, text in _table(value, "logs").items()
        },
        registries={
            _host("registries", host): _key(host, text)
            for host, text in _table(value, "registries").items()
        },
    )


def _terms(scope: str, value: object, known: Named) -> Terms:
    fields = _object(value, scope)
    _require_known(fields, _TERMS, scope)
    publishers = fields.get("publishers")
    if scope == DEFAULT_SCOPE and "origin" in fields:
        raise invalid("`origin` belongs into a scope")
    named = _named(publishers, known, scope) if publishers is not None else None
    threshold = _one(fields, "threshold", _count, 1)
    if threshold > 1 and threshold > len({key.id for key in named or ()}):
        raise invalid(f"{scope}: threshold {threshold} asks for more publishers than it names")
    return Terms(
        scope,
        named,
        threshold,
        tuple(_required(one, known, scope) for one in _list(fields, "attestations")),
        (tuple(_texts(fields["media_types"], scope)),) if "media_types" in fields else (),
        _one(fields, "max_staleness", _duration, None),
        _one(fields, "mode", _mode, None),
        _one(fields, "origin", _origin, None),
        _one(fields, "log", _demand, LogDemand.OFFERED),
        _witnesses(fields, known, scope),
        (_jobs(fields, scope),) if "jobs" in fields else (),
        _one(fields, "countersignature", _demand, LogDemand.OFFERED),
    )


def _witnesses(fields: Mapping[str, Any], known: Named, scope: str) -> tuple[Witnesses, ...]:
    """The witnesses of a scope, of whom all must have seen an entry if it does not say how many; or none."""
    names = _texts(fields.get("witnesses", []), scope)
    if unknown := [name for name in names if name not in known.witnesses]:
        raise invalid(f"{scope} names {unknown[0]!r}, which [witnesses] does not hold")
    found = frozenset(known.witnesses[name] for name in names)
    wanted = _one(fields, "witness_threshold", _count, len(found))
    if wanted > len({key.key.id for key in found}):
        raise invalid(f"{scope}: witness_threshold {wanted} asks for more witnesses than it names")
    return (Witnesses(found, wanted),) if found else ()


def _jobs(fields: Mapping[str, Any], scope: str) -> tuple[JobPattern, ...]:
    """The CI jobs of a scope: each an issuer with claims, the subject among them."""
    found: list[JobPattern] = []
    for value in _list(fields, "jobs"):
        job = _object(value, f"{scope}: a job")
        _require_known(job, {"issuer", "subject", "claims"}, f"{scope}: a job")
        claims = _object(job.get("claims", {}), f"{scope}: claims")
        if "subject" in job:
            claims = {SUBJECT: job["subject"]} | claims
        pairs = tuple((name, _text(wanted, f"{scope}: {name}")) for name, wanted in claims.items())
        try:
            found.append(JobPattern(_text(job.get("issuer"), f"{scope}: issuer"), pairs))
        except InvalidStatementError as error:
            raise invalid(f"{scope}: {error}") from None
    if not found:
        raise invalid(f"{scope}: `jobs` names none, and nothing could be used")
    return tuple(found)


def _note_key(name: str, value: object, *, cosigns: bool) -> NoteKey:
    """The key of a log or a witness, as a C2SP verifier key `name+hash+key`."""
    try:
        key = NoteKey.parse(_text(value, name))
    except InvalidStatementError as error:
        raise invalid(f"{name}: {error}") from None
    if key.cosigns != cosigns:
        raise invalid(
            f"{name}: a witness cosigns with a time, a log does not; this is the other one"
        )
    return key


def _required(value: object, known: Named, scope: str) -> Required:
    fields = _object(value, f"{scope}: an attestation")
    _require_known(fields, {"type", "keys", "where"}, f"{scope}: an attestation")
    kind = _text(fields.get("type"), f"{scope}: the type of an attestation")
    named = _named(fields["keys"], known, scope) if "keys" in fields else None
    where = _object(fields.get("where", {}), f"{scope}: where")
    if not all(isinstance(wanted, str | int | bool) for wanted in where.values()):
        raise invalid(f"{scope}: `where` compares with texts, whole numbers and true or false only")
    return Required(kind, named, where)


def _test(value: object) -> Expected:
    fields = _object(value, "a test")
    _require_known(fields, {"name", "scope"}, "a test")
    return Expected(_text(fields.get("name"), "name"), _text(fields.get("scope"), "scope"))


def _host(table: str, name: str) -> str:
    """The host of a registry in `table`, as names are written: any other would never be asked for."""
    if not is_host(name) or name != name.lower() or name.endswith(":443"):
        raise invalid(f"[{table}] names {name[:140]!r}, which is no host such as registry.example")
    return name


def _key(name: str, value: object) -> PublicKey:
    """A public key in PEM, or its DER in base64."""
    text = _text(value, f"key {name}")
    try:
        if text.lstrip().startswith("-----"):
            return PublicKey.from_pem(text)
        return PublicKey(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError, InvalidStatementError) as error:
        raise invalid(f"key {name}: {error}") from None


def _named(value: object, known: Named, scope: str) -> tuple[PublicKey, ...]:
    names = _texts(value, scope)
    if unknown := [name for name in names if name not in known.keys]:
        raise invalid(f"{scope} names the key {unknown[0]!r}, which [keys] does not hold")
    return tuple(known.keys[name] for name in names)


def _origin(value: object, what: str) -> str:
    try:
        return require_origin(_text(value, what))
    except InvalidStatementError as error:
        raise invalid(str(error)) from None


def _demand(value: object, what: str) -> LogDemand:
    if not isinstance(value, str) or value not in tuple(LogDemand):
        raise invalid(f"{what} is neither required nor offered nor off")
    return LogDemand(value)


def _mode(value: object, what: str) -> Mode:
    if not isinstance(value, str) or value not in tuple(Mode):
        raise invalid(f"{what} is neither enforce nor warn")
    return Mode(value)


def _duration(value: object, what: str) -> timedelta:
    match = _DURATION.fullmatch(_text(value, what))
    if match is None:
        raise invalid(f"{what} is no duration such as 30d, 12h or 15m")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _count(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise invalid(f"{what} does not count from 1")
    return value


def _one(
    fields: Mapping[str, Any],
    name: str,
    read: Callable[[object, str], Value],
    absent: Value,
) -> Value:
    return read(fields[name], name) if name in fields else absent


def _texts(value: object, what: str) -> list[str]:
    if not isinstance(value, list):
        raise invalid(f"{what} holds no list where one is wanted")
    return [_text(one, what) for one in value]


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise invalid(f"{what} is not text")
    return value


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"{what} is not a table")
    return value


def _table(value: Mapping[str, Any], name: str) -> dict[str, Any]:
    return _object(value.get(name, {}), name)


def _list(value: Mapping[str, Any], name: str) -> list[object]:
    found = value.get(name, [])
    if not isinstance(found, list):
        raise invalid(f"{name} is not a list")
    return found


def _require_known(value: Mapping[str, Any], known: Collection[str], what: str) -> None:
    if unknown := sorted(value.keys() - set(known)):
        raise invalid(f"{what} holds the unknown word {unknown[0][:80]!r}")
