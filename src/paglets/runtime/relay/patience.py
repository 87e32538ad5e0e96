"""How long whoever asks something of a connected host waits for the answer, where he says so beside what he asks."""

from __future__ import annotations

from typing import Final

import msgspec

from paglets.core.errors import PagletError
from paglets.remote.bounds import Seconds
from paglets.remote.json_text import decode_json, is_extended
from paglets.runtime.http.guards import JSON_TYPE

#: The largest body that is looked into: as much as a hub holds of any body.
MOST_BODY_BYTES: Final = 64 * 1024


class _Terms(msgspec.Struct):
    timeout: Seconds | None = None


_TERMS: Final = msgspec.json.Decoder(_Terms)


def may_be_in_body(fields: dict[bytes, bytes]) -> bool:
    """Tell whether a body can be looked into: it is JSON, and announced as small.

    One whose length is not announced is passed on as it comes.
    """
    length = fields.get(b"content-length", b"0")
    if not length.isdigit() or not 0 < int(length) <= MOST_BODY_BYTES:
        return False
    return fields.get(b"content-type", JSON_TYPE).partition(b";")[0].strip().lower() in (b"", JSON_TYPE)


def timeout_in(body: bytes) -> float | None:
    """Return the seconds in `timeout` of a JSON object, None where it says none.

    What is malformed says none: the host that it is for is the one to refuse it.
    """
    try:
        try:
            return _TERMS.decode(body).timeout
        except msgspec.DecodeError:
            # What is beside it may be more than JSON proper has.
            return msgspec.convert(decode_json(body), _Terms).timeout if is_extended(body) else None
    except (msgspec.MsgspecError, PagletError, ValueError, RecursionError):
        return None
