"""References to cubes: `[host[:port]/]namespace/name[:tag][@algorithm:hex]` (docs/spec/references.md).

The grammar is Docker's: the first component is a host if it holds a dot or a colon, or is
`localhost`. Names are OCI names (distribution specification, "Pulling manifests"). On the Hugging Face Hub
they are the Hub's: `hf://org/name` is read as `huggingface.co/org/name`, `hf://datasets/org/name` as
`huggingface.co/org/datasets/name`, so that the first component is the account there as well.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import replace
from typing import Final, Self

from memcube_protocol import limits
from memcube_protocol.digest import Digest
from memcube_protocol.errors import InvalidReferenceError
from memcube_protocol.values import frozen

_COMPONENT: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME: Final = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST: Final = re.compile(
    rf"({_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\])(?::([0-9]{{1,5}}))?"
)
_NUMERIC: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
"""A last label that systems read as a number: `127.1` and `0x7f.1` are addresses to them."""
_SEMVER_TAG: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(?:_[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
_REFERENCE_CHARS: Final = 1024

RESERVED_NAMESPACES: Final = frozenset(
    """v2 api log models datasets spaces login logout token tokens oauth auth settings static assets
    admin account accounts organizations new search metrics health healthz readyz docs schema
    .well-known well-known market cart checkout webhooks help about terms privacy library resolve
    """.split()  # noqa: SIM905 - one word a name reads better than a quoted list
)
"""First path components that our registry never gives to an account."""

_SCHEMES: Final = ("https://", "http://", "oci://")

HUB_HOST: Final = "huggingface.co"
"""The host in the names of cubes on the Hugging Face Hub, through whatever mirror they are read."""

HUB_SCHEME: Final = "hf://"
DATASETS: Final = "datasets"
_HUB_COMPONENT: Final = re.compile(
    r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?(?<!\.git)", re.ASCII
)
_HUB_ROUTES: Final = frozenset({"api", DATASETS, "models", "spaces"})
_HUB_REVISION: Final = re.compile(r"@(?!sha256:|sha512:)([^@]*)")


@frozen
class Reference:
    """Where a cube is (`host`, `name`) and which one (`tag`, `digest`); all parts as written.

    `host` is empty when the reference leaves it to the settings. `name` has one or more components.
    A `digest` beside a tag wins: what is fetched must match it.

    Raises:
        InvalidReferenceError: a part breaks the grammar or a limit.
    """

    host: str
    name: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        if self.host and not is_host(self.host):
            raise _invalid(f"{self.host[:100]!r} is not a host name with an optional port")
        first, slash, _ = self.name.partition("/")
        if self.host and not _reads_as_host(self.host):
            raise _invalid(
                f"host {self.host[:100]!r} reads as a namespace: give it a port or a dot"
            )
        if not self.host and slash and _reads_as_host(first):
            raise _invalid(f"{first[:100]!r} reads as a host: write the real host before it")
        if self.host == HUB_HOST:
            _require_hub_name(self.name)
        elif len(self.location) > limits.NAME_CHARS or not _NAME.fullmatch(self.name):
            raise _invalid(
                f"{self.name[:100]!r} is not a name: lower-case letters, digits and single "
                "separators . _ - between them, components divided by /, 255 characters in all"
            )
        if self.tag is not None and not _TAG.fullmatch(self.tag):
            raise _invalid(f"{self.tag[:140]!r} is not a tag: 128 letters, digits, _ . - at most")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reference written as text.

        Raises:
            InvalidReferenceError: any other form.
            InvalidDigestError: the part after `@` is not a digest.
        """
        if len(text) > _REFERENCE_CHARS:
            raise _invalid(f"a reference of {len(text)} characters is too long")
        if text.startswith(HUB_SCHEME):
            text = _without_hub_scheme(text)
        if text.startswith(_SCHEMES):
            scheme = text.partition("//")[0] + "//"
            raise InvalidReferenceError(
                f"{text[:100]!r} is an address, not a reference", hint=f"leave out {scheme}"
            )
        rest, at, digest_text = text.partition("@")
        digest = Digest.parse(digest_text) if at else None
        first, slash, remainder = rest.partition("/")
        host = ""
        if slash and _reads_as_host(first):
            host, rest = first, remainder
        name, colon, tag = rest.partition(":")
        return cls(host, name, tag if colon else None, digest)

    @property
    def namespace(self) -> str:
        """The first component of the name: the account on our registry."""
        return self.name.partition("/")[0]

    @property
    def target(self) -> str:
        """What to ask a registry for: the digest if there is one, else the tag, else `latest`."""
        return str(self.digest) if self.digest else self.tag or "latest"

    def with_host(self, default: str) -> Self:
        """This reference on `default` if it names no host."""
        return self if self.host else replace(self, host=default)

    def with_digest(self, digest: Digest) -> Self:
        """This reference pinned to `digest`."""
        return replace(self, digest=digest)

    @property
    def location(self) -> str:
        """`host/name`, without tag and digest."""
        return f"{self.host}/{self.name}" if self.host else self.name

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.location}{tag}{digest}"


def _without_hub_scheme(text: str) -> str:
    """A reference `hf://[datasets/]org/name[:tag|@revision][@digest]` in its one form.

    A revision is what the Hub calls a tag, a branch or a commit: it stands in the place of the tag.
    """
    place = text.removeprefix(HUB_SCHEME)
    first, slash, rest = place.partition("/")
    if first == DATASETS and slash:
        organisation, slash, rest = rest.partition("/")
        place = f"{organisation}/{DATASETS}/{rest}" if slash else ""
    if re.split("[:@]", place, maxsplit=1)[0].count("/") != 1 + (first == DATASETS):
        raise _invalid_at_hub(f"{text[:140]!r} is not a repository on the Hugging Face Hub")
    tagged = _HUB_REVISION.sub(r":\1", place, count=1)
    return f"{HUB_HOST}/{tagged}"


def _require_hub_name(name: str) -> None:
    """Refuse what is not `org/name`, `org/datasets/name` or an account, each as the Hub takes it.

    Raises:
        InvalidReferenceError: another form.
    """
    parts = name.split("/")
    right = len(parts) < 3 or (len(parts) == 3 and parts[1] == DATASETS)
    if not right or not all(_HUB_COMPONENT.fullmatch(part) for part in parts):
        raise _invalid_at_hub(f"{name[:140]!r} is not the name of a repository on the Hub")
    if parts[0] in _HUB_ROUTES:
        raise _invalid_at_hub(f"{parts[0]!r} is no account on the Hub")


def _invalid_at_hub(what: str) -> InvalidReferenceError:
    return InvalidReferenceError(
        what,
        hint="write hf://org/name or hf://datasets/org/name, then :tag or @revision: letters, digits "
        "and . _ - between them, 96 characters a part",
    )


def is_name(text: str) -> bool:
    """Whether `text` is an OCI repository name of at most 255 characters."""
    return len(text) <= limits.NAME_CHARS and _NAME.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Whether `text` is an OCI tag."""
    return _TAG.fullmatch(text) is not None


def is_host(text: str) -> bool:
    """Whether `text` is a host name or an address, with an optional port up to 65535.

    Ports and addresses have their one canonical spelling: another would be another name for policies.
    """
    parts = _HOST.fullmatch(text) if len(text) <= limits.NAME_CHARS else None
    if parts is None or not _is_address(parts[1]):
        return False
    port = parts[2] or "0"
    return port == str(int(port)) and int(port) <= 65535


def is_immutable_tag(tag: str) -> bool:
    """Whether `tag` is a full SemVer version, which never moves (`+` is written `_`)."""
    return _SEMVER_TAG.fullmatch(tag) is not None


def version_numbers(tag: str) -> tuple[int, int, int] | None:
    """Major, minor and patch of a full version's tag, also of a pre-release; None for another tag."""
    found = _SEMVER_TAG.fullmatch(tag)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def release_numbers(tag: str) -> tuple[int, int, int] | None:
    """Major, minor and patch of a released version's tag; None for a pre-release or another tag."""
    return None if "-" in tag.partition("_")[0] else version_numbers(tag)


def tag_order(tag: str) -> tuple[bool, tuple[int, int, int], bool, str]:
    """What sorts tags: full versions from the lowest to the highest, pre-releases first, then other tags."""
    numbers = version_numbers(tag)
    return numbers is None, numbers or (0, 0, 0), release_numbers(tag) is not None, tag


def tag_of_version(version: str) -> str:
    """Tag of a SemVer `version`: `1.2.0+b1` becomes `1.2.0_b1`.

    Raises:
        InvalidReferenceError: not a full SemVer 2.0 version, or longer than a tag may be.
    """
    tag = version.replace("+", "_")
    if "_" in version or not is_immutable_tag(tag) or not is_tag(tag):
        raise _invalid(f"{version[:140]!r} is not a full SemVer version such as 1.2.0")
    return tag


def _reads_as_host(component: str) -> bool:
    """Whether Docker's grammar takes a first component for a host."""
    return "." in component or ":" in component or component == "localhost"


def _is_address(host: str) -> bool:
    """Whether what is or may be taken for an IP address is one in canonical spelling; others pass.

    An IPv4 address in an IPv6 one (`::ffff:7f00:1`) is another spelling of it.
    """
    try:
        if host.startswith("["):
            address = ipaddress.IPv6Address(host[1:-1])
            return address.ipv4_mapped is None and address.compressed == host[1:-1].lower()
        if _NUMERIC.fullmatch(host.rpartition(".")[2]):
            return str(ipaddress.IPv4Address(host)) == host
    except ValueError:
        return False
    return True


def _invalid(what: str) -> InvalidReferenceError:
    return InvalidReferenceError(
        what, hint="write a reference as [host/]namespace/name[:tag][@sha256:…]"
    )
