from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.artifacts.s3_location import S3Location

SECRET = "hunter2-and-more"

BUCKETS = st.from_regex(r"[a-z0-9][a-z0-9.-]{1,30}[a-z0-9]", fullmatch=True)
PART = st.text(string.ascii_letters + string.digits + "._=+@~-", min_size=1, max_size=12).filter(
    lambda part: part not in (".", "..")
)
PREFIXES = st.lists(PART, max_size=4).map("/".join)
ENDPOINTS = st.sampled_from(["", "http://127.0.0.1:9000", "https://s3.example.org", "https://[::1]:443"])
REGIONS = st.sampled_from(["", "us-east-1", "garage", "eu-central-2"])


@given(BUCKETS, PREFIXES, ENDPOINTS, REGIONS)
def test_an_address_is_read_back_as_it_was_written(bucket: str, prefix: str, endpoint: str, region: str) -> None:
    location = S3Location(bucket, prefix, endpoint, region)
    assert S3Location.parse(str(location)) == location


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://my-bucket", S3Location("my-bucket")),
        ("s3://my-bucket/", S3Location("my-bucket")),
        ("s3://my.bucket/a/b/", S3Location("my.bucket", "a/b")),
        (
            "s3://b42?endpoint=http://localhost:9000/&region=eu-west-1",
            S3Location("b42", "", "http://localhost:9000", "eu-west-1"),
        ),
        ("s3://b42/x?endpoint=https%3A%2F%2Fstore.example", S3Location("b42", "x", "https://store.example")),
    ],
)
def test_addresses(text: str, expected: S3Location) -> None:
    assert S3Location.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bucket",
        "S4://bucket",
        "https://bucket",
        "s3:bucket",
        "s3:///prefix",
        "s3://b",
        "s3://UPPER",
        "s3://-bucket",
        "s3://bucket:80/x",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "s3://bucket/a/./b",
        "s3://bucket/a b",
        "s3://bucket/a%2Fb",
        "s3://bucket/" + "a" * 600,
        "s3://bucket#part",
        "s3://bucket?endpoint",
        "s3://bucket?endpoint=",
        "s3://bucket?endpoint=localhost:9000",
        "s3://bucket?endpoint=ftp://localhost",
        "s3://bucket?endpoint=http://",
        "s3://bucket?endpoint=http://host/path",
        "s3://bucket?endpoint=http://host:port",
        "s3://bucket?endpoint=http://host:0",
        "s3://bucket?endpoint=http://host:99999",
        "s3://bucket?endpoint=http://ho st",
        "s3://bucket?endpoint=http://[::1",
        "s3://bucket?endpoint=http://a&endpoint=http://b",
        "s3://bucket?region=",
        "s3://bucket?region=A_B",
        "s3://bucket?colour=blue",
        "s3://[::1/x",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"object storage|bucket|prefix|region"):
        S3Location.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        f"s3://key:{SECRET}@bucket/x",
        f"s3://{SECRET}@bucket",
        f"s3://bucket?endpoint=http://key:{SECRET}@host",
        f"s3://bucket?endpoint=http://host/?token={SECRET}",
        f"s3://bucket?secret_access_key={SECRET}",
        f"s3://bucket?{SECRET}",
        f"s3://bucket?access_key=a&region=b&secret={SECRET}",
        f"s3://bucket#{SECRET}",
    ],
)
def test_credentials_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="object storage") as caught:
        S3Location.parse(text)
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None or SECRET not in str(caught.value.__context__)


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    for candidate in (text, f"s3://{text}", f"s3://bucket/{text}", f"s3://bucket?endpoint={text}"):
        try:
            location = S3Location.parse(candidate)
        except ValueError:
            continue
        assert S3Location.parse(str(location)) == location
