"""Binary data in JSON, the data-only encoding, and the readers and writers of request bodies."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import socket
import threading
from email.message import Message
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.core.errors import HostError, PagletError, SerializationError
from paglets.remote.transport import (
    LOCAL_PICKLE_CHUNK_BYTES,
    MOVEMENT_CONTENT_TYPE,
    PICKLE_CONTENT_TYPE,
    ChunkedRequestReader,
    ChunkedRequestWriter,
    LimitedRequestReader,
    dump_http_chunked_pickle,
    dump_pickle,
    json_safe,
    load_http_pickle_payload,
    load_pickle,
    restore_binary_tag,
    restore_json_safe,
)
from tests.effort import thorough

PAYLOAD = {"state": {"raw": b"x" * 100_000, "grown": bytearray(b"y")}, "n": 2**70, "list": [1, None, True, 1.5, "z"]}


class RecordingConnection:
    """Stands in for an HTTP connection and keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, data: Any) -> None:
        self.sent.append(bytes(data))


def chunked(body: bytes, size: int) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def dumped(value: Any) -> bytes:
    target = io.BytesIO()
    dump_pickle(value, target)
    return target.getvalue()


class TestJson:
    def test_binary_is_tagged(self) -> None:
        assert json_safe({1: b"\0", "b": [bytearray(b"\1")], "t": (1,), "s": {2, 1}, "f": frozenset("a")}) == {
            "1": {"__paglets_binary__": "bytes", "base64": "AA=="},
            "b": [{"__paglets_binary__": "bytearray", "base64": "AQ=="}],
            "t": [1],
            "s": [1, 2],
            "f": ["a"],
        }

    def test_other_values_are_untouched(self) -> None:
        value = object()
        assert json_safe(value) is value
        assert sorted(json_safe({1, "a"}), key=str) == [1, "a"]

    def test_a_tag_is_restored(self) -> None:
        restored = restore_binary_tag({"__paglets_binary__": "bytearray", "base64": "AQ=="})
        assert (type(restored), restored) == (bytearray, bytearray(b"\1"))
        assert restore_binary_tag({"__paglets_binary__": "bytes", "base64": "AQ=="}) == b"\1"

    @pytest.mark.parametrize(
        "value",
        [
            {"__paglets_binary__": "text", "base64": "AQ=="},
            {"__paglets_binary__": "bytes", "base64": "AQ==", "x": 1},
            {"__paglets_binary__": "bytes"},
            {"__paglets_binary__": ["bytes"], "base64": "AQ=="},
            "text",
            None,
        ],
    )
    def test_everything_else_stays(self, value: Any) -> None:
        assert restore_binary_tag(value) == value
        assert restore_json_safe([value]) == [value]

    def test_bad_base64_is_refused(self) -> None:
        for text in ("?", "A", 5, "ä"):
            with pytest.raises(SerializationError, match="base64"):
                restore_json_safe({"a": {"__paglets_binary__": "bytes", "base64": text}})

    def test_bottomless_values_are_refused(self) -> None:
        value: Any = 1
        for _ in range(50_000):
            value = [value]
        with pytest.raises(SerializationError, match="deeply"):
            restore_json_safe(value)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.binary().map(bytearray),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=15,
        )
    )
    def test_round_trip_through_json(self, value: Any) -> None:
        assert restore_json_safe(json.loads(json.dumps(json_safe(value)))) == value


class TestDataOnlyEncoding:
    def test_round_trip(self) -> None:
        back = load_pickle(io.BytesIO(dumped(PAYLOAD)))
        assert back == PAYLOAD
        assert type(back["state"]["grown"]) is bytearray

    def test_values_that_are_not_wire_values_are_converted(self) -> None:
        assert load_pickle(io.BytesIO(dumped((1, {2})))) == [1, [2]]

    def test_two_values_in_one_stream(self) -> None:
        source = io.BytesIO(dumped(1) + dumped("two"))
        assert [load_pickle(source), load_pickle(source)] == [1, "two"]

    def test_streams_in_pieces(self) -> None:
        sizes: list[int] = []

        class Target:
            def write(self, data: Any) -> None:
                sizes.append(len(data))

        dump_pickle({"raw": bytes(5 * LOCAL_PICKLE_CHUNK_BYTES)}, Target())
        assert max(sizes) == LOCAL_PICKLE_CHUNK_BYTES
        assert sum(sizes) > 5 * LOCAL_PICKLE_CHUNK_BYTES

    def test_what_cannot_travel_writes_nothing(self) -> None:
        target = io.BytesIO()
        with pytest.raises(SerializationError, match=r"^value\['a'\]: object cannot travel"):
            dump_pickle({"a": object()}, target)
        assert target.getvalue() == b""

    def test_every_truncation_ends_early(self) -> None:
        data = dumped({"a": 1})
        for length in range(len(data)):
            with pytest.raises(EOFError):
                load_pickle(io.BytesIO(data[:length]))

    def test_an_announced_length_allocates_nothing(self) -> None:
        with pytest.raises(EOFError):
            load_pickle(io.BytesIO(b"PGLF" + (2**63).to_bytes(8, "little") + b"x"))

    @settings(max_examples=thorough(66, 200), deadline=None)
    @given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda tail: dumped({"a": 1})[:-20] + tail))
    def test_arbitrary_bytes(self, data: bytes) -> None:
        with contextlib.suppress(SerializationError, EOFError):
            load_pickle(io.BytesIO(data))

    def test_a_pickle_is_not_read(self) -> None:
        with pytest.raises(SerializationError, match="data-only"):
            load_pickle(io.BytesIO(b"\x80\x05}\x94\x8c\x01a\x94K\x01s." * 3))


class TestHttpPayload:
    def load(self, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        return load_http_pickle_payload({"Content-Type": MOVEMENT_CONTENT_TYPE, **headers}, io.BytesIO(body))

    def test_chunked(self) -> None:
        assert self.load({"Transfer-Encoding": "chunked"}, chunked(dumped(PAYLOAD), 7000)) == PAYLOAD

    def test_of_known_length(self) -> None:
        body = dumped(PAYLOAD)
        assert self.load({"Content-Length": str(len(body))}, body + b"the next request") == PAYLOAD

    @pytest.mark.parametrize("name", ["content-type", "CONTENT-TYPE"])
    def test_header_names_in_any_case(self, name: str) -> None:
        body = dumped(PAYLOAD)
        headers = {name: MOVEMENT_CONTENT_TYPE + "; version=1", "content-length": str(len(body))}
        assert load_http_pickle_payload(headers, io.BytesIO(body)) == PAYLOAD
        message = Message()
        for key, value in headers.items():
            message[key] = value
        assert load_http_pickle_payload(message, io.BytesIO(body)) == PAYLOAD

    @pytest.mark.parametrize(
        "content_type", [PICKLE_CONTENT_TYPE, "application/json", "", "application/x-paglets-movementx"]
    )
    def test_other_content_types_are_refused(self, content_type: str) -> None:
        with pytest.raises(HostError, match="content type"):
            load_http_pickle_payload({"Content-Type": content_type, "Content-Length": "1"}, io.BytesIO(b"x"))
        with pytest.raises(HostError, match="content type"):
            load_http_pickle_payload({}, io.BytesIO(b"x"))

    @pytest.mark.parametrize("value", [[1], "x", None, 5])
    def test_only_a_dict_is_a_payload(self, value: Any) -> None:
        with pytest.raises(HostError, match="dict"):
            self.load({"Transfer-Encoding": "chunked"}, chunked(dumped(value), 100))

    @pytest.mark.parametrize("length", ["", "-1", "x", "9" * 30, "²"])
    def test_a_body_needs_a_usable_length(self, length: str) -> None:
        with pytest.raises(HostError, match="Content-Length"):
            self.load({"Content-Length": length}, b"")

    def test_a_body_that_ends_early(self) -> None:
        body = dumped(PAYLOAD)
        with pytest.raises(EOFError):
            self.load({"Content-Length": str(len(body))}, body[:-1])
        with pytest.raises(EOFError):
            self.load({"Content-Length": str(len(body) - 1)}, body)
        with pytest.raises(EOFError):
            self.load({"Transfer-Encoding": "chunked"}, chunked(body, 1000)[:-8])

    @pytest.mark.parametrize("headers", [{"Transfer-Encoding": "chunked"}, {"Content-Length": "{}"}])
    def test_the_whole_body_is_read_and_no_more(self, headers: dict[str, str]) -> None:
        body = dumped(PAYLOAD)
        wire = chunked(body, 1000) if "Transfer-Encoding" in headers else body
        source = io.BytesIO(wire + b"POST /next")
        headers = {name: text.format(len(body)) for name, text in headers.items()}
        assert load_http_pickle_payload({"Content-Type": MOVEMENT_CONTENT_TYPE, **headers}, source) == PAYLOAD
        assert source.read() == b"POST /next"

    def test_a_body_that_goes_on_after_its_value(self) -> None:
        body = dumped(PAYLOAD) + b"x"
        with pytest.raises(SerializationError, match="goes on"):
            self.load({"Content-Length": str(len(body))}, body)
        with pytest.raises(SerializationError, match="goes on"):
            self.load({"Transfer-Encoding": "chunked"}, chunked(body, 1000))


class TestChunkedWriter:
    def test_small_writes_are_gathered(self) -> None:
        connection = RecordingConnection()
        writer = ChunkedRequestWriter(connection)  # type: ignore[arg-type]
        assert writer.write(b"ab") == 2
        assert writer.write(memoryview(b"c")) == 1
        assert writer.write(b"") == 0
        assert connection.sent == []
        writer.close()
        writer.close()
        assert b"".join(connection.sent) == b"3\r\nabc\r\n0\r\n\r\n"
        with pytest.raises(ValueError, match="closed"):
            writer.write(b"x")

    def test_large_writes_go_out_in_order(self) -> None:
        connection = RecordingConnection()
        writer = ChunkedRequestWriter(connection)  # type: ignore[arg-type]
        writer.write(b"head")
        writer.write(b"x" * 70_000)
        writer.flush()
        writer.write(b"tail")
        writer.close()
        reader = ChunkedRequestReader(io.BytesIO(b"".join(connection.sent)))
        assert reader.read() == b"head" + b"x" * 70_000 + b"tail"

    def test_over_a_real_connection(self) -> None:
        value = {"raw": os.urandom(3 * 1024 * 1024), "n": 1}
        received: list[Any] = []
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve() -> None:
                client, _ = server.accept()
                with client, client.makefile("rb") as source:
                    headers = {}
                    source.readline()
                    while (line := source.readline().strip()) != b"":
                        name, _, text = line.decode().partition(": ")
                        headers[name] = text
                    received.append(load_http_pickle_payload(headers, source))

            thread = threading.Thread(target=serve)
            thread.start()
            with contextlib.closing(http.client.HTTPConnection(*server.getsockname())) as connection:
                connection.putrequest("POST", "/agents")
                connection.putheader("Content-Type", MOVEMENT_CONTENT_TYPE)
                connection.putheader("Transfer-Encoding", "chunked")
                connection.endheaders()
                dump_http_chunked_pickle(connection, value)
            thread.join()
        assert received == [value]


class TestReaders:
    def test_extensions_and_trailers_are_skipped(self) -> None:
        source = io.BytesIO(b'3;a=b;c="d"\r\nabc\r\n2 \r\nde\r\n0;last\r\nX-Sum: 5\r\nY: 6\r\n\r\nnext')
        assert ChunkedRequestReader(source).read() == b"abcde"
        assert source.read() == b"next"

    def test_reading_by_size_crosses_chunks(self) -> None:
        reader = ChunkedRequestReader(io.BytesIO(chunked(b"abcdefghij", 3)))
        assert [reader.read(4), reader.read(0), reader.read(5), reader.read(5), reader.read(5)] == [
            b"abcd",
            b"",
            b"efghi",
            b"j",
            b"",
        ]

    @pytest.mark.parametrize("size", [1, 2, 3, 100])
    def test_reading_lines(self, size: int) -> None:
        body = b"one\ntwo\n\nlast"
        for reader in (
            ChunkedRequestReader(io.BytesIO(chunked(body, size))),
            LimitedRequestReader(io.BytesIO(body + b"more"), len(body)),
        ):
            assert [reader.readline(), reader.readline(2), reader.readline(), reader.readline(None)] == [
                b"one\n",
                b"tw",
                b"o\n",
                b"\n",
            ]
            assert [reader.readline(), reader.readline(), reader.read(None)] == [b"last", b"", b""]

    @pytest.mark.parametrize(
        "data", [b"", b"3", b"3\r\n", b"3\r\nab", b"3\r\nabc", b"3\r\nabc\r\n", b"0\r\n", b"0\r\nX: 1"]
    )
    def test_truncation_is_an_end_of_file_error(self, data: bytes) -> None:
        for method in ("read", "readline"):
            with pytest.raises(EOFError):
                reader = ChunkedRequestReader(io.BytesIO(data))
                while getattr(reader, method)():
                    pass

    @pytest.mark.parametrize(
        "data",
        [
            b"x\r\n",
            b"-1\r\n",
            b"\r\n",
            b"0x3\r\nabc\r\n",
            b"+3\r\nabc\r\n",
            b"1_0\r\n",
            b"f" * 17 + b"\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"0\r\n" + b"X: 1\r\n" * 100 + b"\r\n",
            b"3;" + b"x" * 10_000 + b"\r\nabc\r\n",
        ],
    )
    def test_malformed_chunks_are_refused(self, data: bytes) -> None:
        with pytest.raises(HostError, match="malformed chunked body"):
            ChunkedRequestReader(io.BytesIO(data)).read()

    @settings(max_examples=thorough(66, 200), deadline=None)
    @given(st.binary(max_size=60))
    def test_arbitrary_bytes(self, data: bytes) -> None:
        with contextlib.suppress(PagletError, EOFError):
            ChunkedRequestReader(io.BytesIO(data)).read()

    @given(st.binary(max_size=200), st.integers(1, 50), st.lists(st.integers(0, 30), max_size=20))
    def test_any_sizes_read_the_same_body(self, body: bytes, chunk: int, sizes: list[int]) -> None:
        chunk_reader = ChunkedRequestReader(io.BytesIO(chunked(body, chunk)))
        limited = LimitedRequestReader(io.BytesIO(body + b"after"), len(body))
        for reader in (chunk_reader, limited):
            pieces = [reader.read(size) for size in sizes]
            assert b"".join(pieces) + reader.read() == body

    def test_a_limited_body_that_ends_early(self) -> None:
        with pytest.raises(EOFError):
            LimitedRequestReader(io.BytesIO(b"abc"), 5).read()
