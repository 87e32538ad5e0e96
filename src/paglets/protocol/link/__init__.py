"""Links: many requests with their answers over one connection, in either direction, without input and output.

A host that cannot be called opens a connection to one that can, its hub, and is asked through it. A *link* is what is
said on such a connection: each end says who it is, and may then ask the other, up to a limit, at the same time. A
*stream* is one request with its answer.

| frame    | meaning                                        |
| -------- | ---------------------------------------------- |
| `HELLO`  | who speaks; first                              |
| `OPEN`   | a request begins: method, target, headers      |
| `HEAD`   | its answer begins: status, headers             |
| `DATA`   | a piece of a body                              |
| `END`    | a body is complete                             |
| `RESET`  | the stream is given up, and why                |
| `CREDIT` | so many more bytes may be sent on the stream   |
| `PING`   | does the other end live? `PONG` says that      |

A stream is gone when both bodies are complete or one end has given it up. A body is sent as far as the reader's credit
goes, so one that is read slowly holds up nothing but itself.
"""

from __future__ import annotations

from paglets.protocol.link.machine import Link
from paglets.protocol.link.model import (
    Credited,
    Ended,
    Greeted,
    Headed,
    Headers,
    Hello,
    LinkError,
    LinkEvent,
    LinkFullError,
    LinkLimits,
    LinkStatistics,
    Opened,
    Received,
    ResetCode,
    WasReset,
)

__all__ = [
    "Credited",
    "Ended",
    "Greeted",
    "Headed",
    "Headers",
    "Hello",
    "Link",
    "LinkError",
    "LinkEvent",
    "LinkFullError",
    "LinkLimits",
    "LinkStatistics",
    "Opened",
    "Received",
    "ResetCode",
    "WasReset",
]
