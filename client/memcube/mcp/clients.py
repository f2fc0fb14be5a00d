"""Writing the configuration of MCP clients, so that they start `memcube mcp` themselves.

A client's file holds other things of its user: all of it is kept, a copy of the file as it was stays
beside it, and the new one takes its place in one step. An entry of the same name that says something
else goes only where the user asks for that, who has seen how both differ. A file that is not strict
JSON (some clients allow comments) is refused, since writing it anew would lose what it says.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from difflib import ndiff
from pathlib import Path
from typing import Any, Final

from memcube_protocol import canonical_json, limits
from memcube_protocol.errors import ConflictError, InvalidJsonError, NotFoundError
from memcube_protocol.values import frozen

from memcube.store import files

BACKUP: Final = ".memcube-backup"
FILE_BYTES: Final = 8 * limits.MIB


@frozen
class ClientKind:
    """An MCP client: where its file lies below the home or the project folder, and its key."""

    title: str
    path: str
    key: str = "mcpServers"
    in_project: bool = False
    says_type: bool = False


def desktop_path(platform: str) -> str:
    """Where Claude Desktop keeps its file below the home folder, by `sys.platform`."""
    file = "Claude/claude_desktop_config.json"
    places = {"darwin": "Library/Application Support", "win32": "AppData/Roaming"}
    return f"{places.get(platform, '.config')}/{file}"


CLIENTS: Final[Mapping[str, ClientKind]] = {
    "claude-desktop": ClientKind("Claude Desktop", desktop_path(sys.platform)),
    "claude-code": ClientKind("Claude Code", ".mcp.json", in_project=True),
    "cursor": ClientKind("Cursor", ".cursor/mcp.json"),
    "vscode": ClientKind(
        "Visual Studio Code", ".vscode/mcp.json", key="servers", in_project=True, says_type=True
    ),
    "windsurf": ClientKind("Windsurf", ".codeium/windsurf/mcp_config.json"),
    "gemini-cli": ClientKind("Gemini CLI", ".gemini/settings.json"),
}


@frozen
class Installation:
    """A file with the entry in it: `content` is what it holds then, `before` what it holds now.

    `differs` says line by line how the entry of that name changes, `-` before and `+` then; it is empty
    where there was none, or the same.
    """

    path: Path
    name: str
    content: bytes
    before: bytes | None
    differs: tuple[str, ...] = ()

    def require_new(self) -> None:
        """That it replaces nothing.

        Raises:
            ConflictError: another entry of the name is there; the message shows how it would change.
        """
        if self.differs:
            lines = "".join(f"\n  {line}" for line in self.differs)
            raise ConflictError(
                f"{self.path} has another server called {self.name!r}, which would change:{lines}",
                hint="choose another name with --name, or replace it with --force: a copy is kept",
            )

    def write(self) -> Path | None:
        """Put the new content in place; the copy of the old one, if there was one and it differs.

        Raises:
            ConflictError: somebody else has changed the file since it was read.
            StorageError: it cannot be written; the file is as it was.
        """
        if self.content == self.before:
            return None
        files.make_folder(self.path.parent)
        mode = self.path.stat().st_mode & 0o777 if self.before is not None else files.FILE_MODE
        backup = self.path.with_name(self.path.name + BACKUP)
        if self.before is not None:
            files.replace_file(backup, self.before)
        if files.read_file(self.path, FILE_BYTES) != self.before:
            raise ConflictError(
                f"{self.path} has changed meanwhile", hint="close the client, and install again"
            )
        with files.storage_errors(f"{self.path} cannot be written"):
            files.replace_file(self.path, self.content)
            self.path.chmod(mode)
        return backup if self.before is not None else None


def installation(
    client: ClientKind,
    name: str,
    arguments: Sequence[str],
    *,
    home: Path,
    project: Path,
    environment: Mapping[str, str],
) -> Installation:
    """What `memcube mcp` with `arguments` under `name` makes of the client's file.

    Raises:
        InvalidJsonError: the file is not strict JSON, or another form than the client's.
        ConflictError: the file of a project lies outside of it.
        NotFoundError: the command `memcube` is not found.
        StorageError: the file cannot be read.
    """
    path = _place(client, home, project)
    before = files.read_file(path, FILE_BYTES)
    whole = _parsed(before, path)
    servers = whole.setdefault(client.key, {})
    if not isinstance(servers, dict):
        raise _not_changed(path, f"{client.key!r} is not an object")
    entry: dict[str, Any] = {"type": "stdio"} if client.says_type else {}
    entry |= {"command": _command(), "args": ["mcp", "serve", *arguments]}
    entry |= {"env": dict(environment)} if environment else {}
    if name in servers and servers[name] == entry:
        return Installation(path, name, before or b"", before)
    differs = _difference(servers[name], entry) if name in servers else ()
    servers[name] = entry
    content = json.dumps(whole, indent=2, ensure_ascii=False).encode() + b"\n"
    return Installation(path, name, content, before, differs)


def _place(client: ClientKind, home: Path, project: Path) -> Path:
    """Where the client's file lies.

    A file that a link leads to, as people keep their settings elsewhere, is changed there. A project
    may be somebody else's, and its links their choice.
    """
    path = Path(os.path.realpath((project if client.in_project else home) / client.path))
    if client.in_project and not path.is_relative_to(os.path.realpath(project)):
        raise ConflictError(
            f"{project / client.path} leads out of the project, to {path}",
            hint="remove the link, or --print the entry and add it by hand",
        )
    return path


def _difference(old: object, new: Mapping[str, Any]) -> tuple[str, ...]:
    """The lines of both entries that differ, without the secrets that people put into such entries."""
    known: Mapping[str, Any] = new.get("env", {})
    before, then = (
        json.dumps(_shown(one, known), indent=1, ensure_ascii=False).splitlines()
        for one in (old, new)
    )
    lines = ndiff(before, then)
    return tuple(line for line in lines if line[:2] in ("- ", "+ ")) or (
        "a value that is not shown",
    )


def _shown(entry: object, known: Mapping[str, Any]) -> object:
    """`entry` with an ellipsis for variables and headers that are not among the `known`."""
    if not isinstance(entry, dict):
        return entry
    hidden = {
        name: {key: value if key in known else "…" for key, value in values.items()}
        for name in ("env", "headers")
        if isinstance(values := entry.get(name), dict)
    }
    return entry | hidden


def _parsed(content: bytes | None, path: Path) -> dict[str, Any]:
    if content is None or not content.strip():
        return {}
    try:
        return canonical_json.parse_object(content, what=str(path), any_integer=True)
    except InvalidJsonError as error:
        raise _not_changed(path, str(error)) from None


def _not_changed(path: Path, why: str) -> InvalidJsonError:
    return InvalidJsonError(
        f"{path} is not changed: {why}",
        hint="--print shows the entry; add it by hand where the file holds comments",
    )


def _command() -> str:
    """The whole path of `memcube`: clients start it without the user's shell and its PATH."""
    own = Path(sys.argv[0])
    found = str(own.absolute()) if own.stem == "memcube" and own.is_file() else None
    found = found or shutil.which("memcube")
    if found is None:
        raise NotFoundError("the command memcube is not on the PATH", hint="install memcube first")
    return found
