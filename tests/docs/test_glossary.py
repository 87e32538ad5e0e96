"""The glossary can be searched by eye, and the names that it gives for those of Aglets are names here."""

from __future__ import annotations

import re
from pathlib import Path

from paglets.core import agent, context, handlers, itinerary, messages, policies
from paglets.remote import proxy, transfer
from paglets.runtime import host

ROOT = Path(__file__).resolve().parents[2]
TERMS, _, AGLETS = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").partition("## Coming from Java Aglets")
_ROW = re.compile(r"^\| (?P<left>.+?) \| (?P<right>.+) \|$", re.MULTILINE)
PLACES = (
    *(agent, context, handlers, itinerary, messages, policies, proxy, transfer, host),
    *(agent.Paglet, host.Host, proxy.PagletProxy),
)


def rows(text: str) -> list[tuple[str, str]]:
    found = [(match["left"], match["right"]) for match in _ROW.finditer(text)]
    return [row for row in found if row[0] not in ("term", "Aglets", "---")]


def test_terms_are_in_alphabetical_order_and_there_once() -> None:
    terms = [term.lower() for term, _ in rows(TERMS)]
    assert len(terms) > 50
    assert terms == sorted(set(terms))


def test_every_name_that_stands_for_one_of_aglets_is_there() -> None:
    names = {name for _, right in rows(AGLETS) for name in re.findall(r"`([\w.]+)`", right)}
    assert len(names) > 20
    missing = []
    for name in sorted(names - {"agent_id"}):
        first, _, rest = name.partition(".")
        found = next((getattr(place, first) for place in PLACES if hasattr(place, first)), None)
        if found is None or (rest and not hasattr(found, rest)):
            missing.append(name)
    assert missing == []


def test_every_link_of_the_glossary_leads_to_a_heading() -> None:
    for page, anchor in re.findall(r"\]\(([\w/-]+\.md)(?:#([\w-]+))?\)", TERMS + AGLETS):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        headings = [
            re.sub(r"[^\w\- ]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in text.splitlines()
            if line.startswith("#")
        ]
        assert not anchor or anchor in headings, (page, anchor)
