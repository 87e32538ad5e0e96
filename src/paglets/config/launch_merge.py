"""A new bundled launch file that keeps what its owner made of the old one."""

from __future__ import annotations

import re
import tomllib
from typing import Any

from paglets.config.launch_file import ENTRY_KEYS, POLICY_TABLE
from paglets.config.toml_text import toml_key, toml_value

_KEPT_HEADING = "# Kept from the previous file."
_BLOCK_START = re.compile(r"^(?=\[\[)", re.MULTILINE)

Identity = tuple[Any, Any]


def merged_launch_text(bundled: str, previous: dict[str, Any]) -> str:
    """Return the bundled file with the choices of an operator added.

    Kept are entries for other classes, `enabled = false`, and known keys that the bundled entry does not have. All else
    is as bundled: the difference may just as well be an older default. Entries that no release understands any more,
    that is with an alias in place of a class, are left out.

    :param previous: the content of the file that is replaced.
    """
    head, *blocks = _BLOCK_START.split(bundled)
    known: set[tuple[str, Identity]] = set()
    texts = [head]
    if POLICY_TABLE in previous and POLICY_TABLE not in tomllib.loads(bundled):
        texts.append(f"{_KEPT_HEADING}\n\n{_policy_text(previous[POLICY_TABLE])}\n")
    for block in blocks:
        ((table, (entry,)),) = tomllib.loads(block).items()
        identity = _identity(entry)
        known.add((table, identity))
        mine = next((other for other in _entries(previous, table) if _identity(other) == identity), None)
        texts.append(block if mine is None else _adjusted(block, table, entry, mine))
    kept = [
        _entry_text(table, entry)
        for table in ENTRY_KEYS
        for entry in _entries(previous, table)
        if (table, _identity(entry)) not in known
    ]
    if kept:
        texts.append(f"\n{_KEPT_HEADING}\n\n" + "\n".join(kept))
    return "".join(texts)


def _policy_text(policy: Any) -> str:
    # In one table: its inner tables stand in braces.
    lines = [f"{toml_key(key)} = {toml_value(value)}" for key, value in policy.items()]
    return "\n".join([f"[{POLICY_TABLE}]", *lines, ""])


def _entries(data: dict[str, Any], table: str) -> list[dict[str, Any]]:
    found = data.get(table, [])
    if not isinstance(found, list):
        return []
    return [entry for entry in found if isinstance(entry, dict) and "use" not in entry and entry.get("class")]


def _identity(entry: dict[str, Any]) -> Identity:
    return entry.get("class"), entry.get("service")


def _adjusted(block: str, table: str, bundled: dict[str, Any], mine: dict[str, Any]) -> str:
    if mine.get("enabled") is False:
        block = re.sub(r"(?m)^enabled *=.*$", "enabled = false", block)
    added = [f"{key} = {toml_value(mine[key])}\n" for key in ENTRY_KEYS[table] if key in mine and key not in bundled]
    body = block.rstrip("\n")
    return f"{body}\n{''.join(added)}{block[len(body) + 1 :]}"


def _entry_text(table: str, entry: dict[str, Any]) -> str:
    lines = [f"{key} = {toml_value(entry[key])}" for key in ENTRY_KEYS[table] if key in entry]
    return "\n".join([f"[[{table}]]", *lines, ""])
