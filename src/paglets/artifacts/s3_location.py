"""The address of a place in S3-compatible object storage."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

__all__ = ["S3Location"]

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9._=+@~-]+(?:/[A-Za-z0-9._=+@~-]+)*")
_REGION: Final = re.compile(r"[a-z0-9-]{1,64}")
_MOST_PREFIX_CHARACTERS: Final = 512
_FORM: Final = "s3://BUCKET[/PREFIX][?endpoint=URL][&region=NAME]"


@dataclass(frozen=True, slots=True)
class S3Location:
    """A bucket, and what the keys in it begin with.

    Without an `endpoint` it is Amazon's. Credentials are never part of it.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    region: str = ""

    def __str__(self) -> str:
        """Return the address in the form that `parse` reads."""
        options = {name: value for name in ("endpoint", "region") if (value := getattr(self, name))}
        path = f"/{self.prefix}" if self.prefix else ""
        query = f"?{urlencode(options, safe=':/')}" if options else ""
        return f"s3://{self.bucket}{path}{query}"

    @classmethod
    def parse(cls, text: str) -> S3Location:
        """Read `s3://BUCKET[/PREFIX][?endpoint=URL][&region=NAME]`.

        :raises ValueError: it is not of this form, or has credentials in it; the text repeats no part that may be
            secret.
        """
        parts = _split(text)
        if parts is None or parts.scheme != "s3" or parts.fragment:
            raise ValueError(f"The address of object storage must be {_FORM}")
        if "@" in parts.netloc:
            raise ValueError(
                "The address of object storage must not hold credentials: they come from AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or the other usual places"
            )
        if not _BUCKET.fullmatch(parts.netloc):
            raise ValueError(f"Not the name of a bucket: {parts.netloc!r}; the address must be {_FORM}")
        prefix = parts.path.strip("/")
        if prefix and not _good_prefix(prefix):
            raise ValueError(f"Not a prefix for keys: {prefix!r}; use letters, digits, '._=+@~-' and single slashes")
        given: dict[str, str] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in ("endpoint", "region") or name in given:
                raise ValueError(f"The address of object storage takes endpoint and region once each: {_FORM}")
            given[name] = value
        endpoint, region = given.get("endpoint", ""), given.get("region", "")
        if "endpoint" in given:
            endpoint = _checked_endpoint(endpoint)
        if "region" in given and not _REGION.fullmatch(region):
            raise ValueError(f"Not the name of a region: {region!r}")
        return cls(parts.netloc, prefix, endpoint, region)


def _good_prefix(prefix: str) -> bool:
    return (
        len(prefix) <= _MOST_PREFIX_CHARACTERS
        and _PREFIX.fullmatch(prefix) is not None
        and not {".", ".."}.intersection(prefix.split("/"))
    )


def _split(text: str) -> SplitResult | None:
    # An error of the library quotes what it was given, so it must not become the context of another.
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - raises where it is none
    except ValueError:
        return None
    return parts


def _checked_endpoint(text: str) -> str:
    parts = _split(text)
    if parts is None or not _is_sound(parts):
        # Not repeated: it may hold a password.
        raise ValueError("The endpoint of object storage must be http://HOST[:PORT] or https://HOST[:PORT]")
    return text.rstrip("/")


def _is_sound(parts: SplitResult) -> bool:
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and "@" not in parts.netloc
        and parts.port != 0
        and parts.path in ("", "/")
        and not (parts.query or parts.fragment)
        and not re.search(r"[\s\x00-\x1f\\]", parts.netloc)
    )
