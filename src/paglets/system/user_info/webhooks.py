"""Posting notifications to web hooks."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

from paglets.core.errors import HostError
from paglets.system.user_info.outbox import Delivery

MAX_BODY_BYTES: Final = 64 * 1024
MAX_TARGETS: Final = 16
#: Answers after which the same may work later.
_LATER: Final = frozenset({408, 425, 429})
_HEADER: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Verdict(Enum):
    """What became of an attempt."""

    DELIVERED = "delivered"
    LATER = "later"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt, how it ended, why, and how many seconds the target wants to have a rest."""

    delivery: Delivery
    verdict: Verdict
    reason: str = ""
    pause: float | None = None


def targets(urls: Sequence[str], variable: str) -> dict[str, str]:
    """Return the URLs to post to by the names under which they are kept.

    URLs from an environment variable, where they are separated by blanks, are kept by their number alone: many such
    URLs are secrets, and the state of a paglet is not the place for one.

    :raises HostError: one is no URL of HTTP, or there are more than 16.
    """
    secret = os.environ.get(variable, "").split() if variable else []
    found = dict(zip(urls, urls, strict=True)) | {f"{variable}[{number}]": url for number, url in enumerate(secret)}
    for name, url in found.items():
        if not _is_http(url):
            raise HostError(f"web hook {name_of(name)} must be a URL that begins with http:// or https://")
    if len(found) > MAX_TARGETS:
        raise HostError(f"{len(found)} web hooks are too many; {MAX_TARGETS} are allowed")
    return found


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def name_of(target: str) -> str:
    """Return a target without what may be secret in its URL."""
    if "://" not in target:
        return target
    try:
        return urlsplit(target).hostname or "?"
    except ValueError:
        return "?"


def headers(variable: str) -> dict[str, str]:
    """Return the headers in an environment variable: a JSON object, or lines like `Authorization: Bearer …`.

    :raises HostError: it holds something else.
    """
    text = os.environ.get(variable, "").strip() if variable else ""
    if not text:
        return {}
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except ValueError as exc:
            raise HostError(f"{variable} is neither a JSON object nor lines like 'Name: value'") from exc
    else:
        found = dict(_header(line, variable) for line in text.splitlines() if line.strip())
    for name, value in found.items():
        if not isinstance(value, str) or not _HEADER.fullmatch(name) or not value.isprintable():
            raise HostError(f"{variable} has a header that cannot be sent: {name[:40]!r}")
    return dict(found)


def _header(line: str, variable: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise HostError(f"{variable} is neither a JSON object nor lines like 'Name: value'")
    return name.strip(), value.strip()


def post_all(
    deliveries: Sequence[Delivery], urls: Mapping[str, str], extra: Mapping[str, str], timeout: float
) -> list[Attempt]:
    """Post deliveries, all at once, and return how each ended.

    :param urls: the URLs of their targets; what has none any more is refused.
    :param extra: headers to send along.
    :param timeout: seconds for each.
    """
    return asyncio.run(_post_all(deliveries, urls, extra, timeout))


async def _post_all(
    deliveries: Sequence[Delivery], urls: Mapping[str, str], extra: Mapping[str, str], timeout: float
) -> list[Attempt]:
    # Loaded by those who post only. A library, since these are servers of others, often behind proxies of others.
    import httpx

    for library in ("httpx", "httpcore"):
        # They log every URL, and many of these are secrets.
        logging.getLogger(library).setLevel(logging.WARNING)
    async with httpx.AsyncClient(timeout=timeout, follow_redirects=False) as client:

        async def post(delivery: Delivery) -> Attempt:
            url = urls.get(delivery.target)
            if url is None:
                return Attempt(delivery, Verdict.REFUSED, "it is not configured any more")
            body = encoded(delivery)
            sent = {"Content-Type": "application/json", "Idempotency-Key": delivery.delivery_id, **extra}
            try:
                # Its own limits begin anew with every byte. The body of the answer is not read: it may be of any size.
                async with (
                    asyncio.timeout(timeout),
                    client.stream("POST", url, content=body, headers=sent) as answer,
                ):
                    return _judge(delivery, answer.status_code, answer.headers.get("Retry-After"))
            except (TimeoutError, httpx.TimeoutException):
                return Attempt(delivery, Verdict.LATER, f"no answer within {timeout:g} s")
            except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
                # Only the kind: the text of some errors has the whole URL in it.
                return Attempt(delivery, Verdict.LATER, type(exc).__name__)

        return list(await asyncio.gather(*map(post, deliveries)))


def encoded(delivery: Delivery) -> bytes:
    """Return the body to post; one that is too large loses its metadata."""
    body = json.dumps(delivery.body | {"id": delivery.delivery_id}).encode()
    if len(body) > MAX_BODY_BYTES:
        body = json.dumps(delivery.body | {"id": delivery.delivery_id, "metadata": {}}).encode()
    return body


def _judge(delivery: Delivery, status: int, retry_after: str | None) -> Attempt:
    if 200 <= status < 300:
        return Attempt(delivery, Verdict.DELIVERED)
    reason = f"it answered {status}"
    if status in _LATER or status >= 500:
        return Attempt(delivery, Verdict.LATER, reason, _seconds(retry_after))
    return Attempt(delivery, Verdict.REFUSED, reason)


def _seconds(retry_after: Any) -> float | None:
    try:
        seconds = float(retry_after)
    except (TypeError, ValueError):
        return None  # absent, or a date
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
