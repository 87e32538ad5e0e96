"""Keys and certificates for tests of hosts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from paglets.runtime.host import Host
from paglets.runtime.http.audit import AUDIT_NAME, audit_files
from paglets.security.key_file import change_key_file
from paglets.security.keys import KeyLimits, new_key
from paglets.security.roles import Role

TALKER = "tests.agents.http_agents:Talker"


def add_key(path: Path, name: str, role: Role, **more: Any) -> str:
    """Add a key to a file and return it."""
    limits = {each: more.pop(each) for each in list(more) if each in KeyLimits.__dataclass_fields__}
    key, record = new_key(name, role, limits=KeyLimits(**limits), **more)
    change_key_file(path, lambda content: replace(content, keys=(*content.keys, record)))
    return key


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def audited(host: Host) -> list[dict[str, Any]]:
    """Return the lines of a host's audit log."""
    files: Iterable[Path] = audit_files(host.persistence_dir / AUDIT_NAME)
    return [json.loads(line) for each in files if each.exists() for line in each.read_text().splitlines()]


def look_again(host: Host) -> None:
    """Have a running host take up its files now, instead of within a second."""
    entrance = host._running()._entrance
    assert entrance is not None
    entrance.look()
