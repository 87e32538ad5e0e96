"""What remains of the module that once held the host's HTTP server.

``PagletHTTPServer`` and ``RequestHandler``, a thread per request, are gone: a host serves an ASGI application on its
own event loop. `paglets.runtime.http.app.application` builds it, and
`paglets.runtime.http.server.HttpServer` serves it. The routes are in `paglets.runtime.http.routes`; a
running host describes them at ``/schema``.

What a program may still import from here reads the body of a request in the encoding of movements.
"""

from __future__ import annotations

from paglets.remote.transport import load_http_pickle_payload

__all__ = ["load_http_pickle_payload"]
