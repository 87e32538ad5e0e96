"""OpenStack Swift with its S3 interface, whole in one process: a real object store for tests.

`python -m tests.artifacts.swift_server DIRECTORY PORT ACCOUNT USER SECRET` keeps its objects below the directory,
prints `ready`, and ends when its standard input does. It is Swift's own four servers, as its in-process tests put them
together: proxy, account, container and object, each with a socket on the loopback interface.
"""

from __future__ import annotations

import eventlet

eventlet.monkey_patch()

import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from eventlet import wsgi  # noqa: E402
from swift.common import utils  # noqa: E402
from swift.common.http_protocol import SwiftHttpProtocol  # noqa: E402
from swift.common.ring import RingBuilder  # noqa: E402
from swift.common.wsgi import loadapp  # noqa: E402

_PIPELINE = "catch_errors gatekeeper listing_formats s3api tempauth bulk slo copy proxy-server"
_STORAGE = ("account", "container", "object")


def main(directory: Path, port: int, user: str, secret: str) -> None:
    """Serve until standard input ends.

    :param user: account and user, with `_` between them.
    """
    sockets = {"proxy": eventlet.listen(("127.0.0.1", port))}
    sockets |= {name: eventlet.listen(("127.0.0.1", 0)) for name in _STORAGE}
    _configure(directory, user, secret, {name: sockets[name].getsockname()[1] for name in _STORAGE})
    utils.set_swift_dir(str(directory))
    utils.validate_configuration()
    for name, listening in sockets.items():
        application = loadapp(str(directory / f"{name}.conf"), {"swift_dir": str(directory)})
        eventlet.spawn(_serve, listening, application)
    print("ready", flush=True)
    while eventlet.tpool.execute(os.read, 0, 1):
        pass
    os._exit(0)


def _serve(listening: Any, application: Any) -> None:
    wsgi.server(listening, application, utils.NullLogger(), protocol=SwiftHttpProtocol, debug=False)


def _configure(directory: Path, user: str, secret: str, ports: dict[str, int]) -> None:
    disks = directory / "disks"
    (disks / "d1").mkdir(parents=True, exist_ok=True)
    for name, port in ports.items():
        builder = RingBuilder(1, 1, 0)
        builder.add_dev({"region": 1, "zone": 1, "weight": 1, "ip": "127.0.0.1", "port": port, "device": "d1"})
        builder.rebalance()
        builder.get_ring().save(str(directory / f"{name}.ring.gz"))
        (directory / f"{name}.conf").write_text(
            f"[DEFAULT]\nswift_dir = {directory}\ndevices = {disks}\nmount_check = false\nfallocate_reserve = 0\n"
            "disable_fallocate = true\n"
            f"[pipeline:main]\npipeline = {name}-server\n[app:{name}-server]\nuse = egg:swift#{name}\n",
        )
    (directory / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = tests\nswift_hash_path_prefix = tests\n"
    )
    filters = "".join(
        f"[filter:{name}]\nuse = egg:swift#{name}\n{options}"
        for name, options in {
            "catch_errors": "",
            "gatekeeper": "",
            "listing_formats": "",
            "bulk": "",
            "slo": "",
            "copy": "",
            "s3api": "s3_only = true\nmin_segment_size = 65536\n",
            "tempauth": f"user_{user} = {secret} .admin\n",
        }.items()
    )
    (directory / "proxy.conf").write_text(
        f"[DEFAULT]\nswift_dir = {directory}\n[pipeline:main]\npipeline = {_PIPELINE}\n"
        "[app:proxy-server]\nuse = egg:swift#proxy\nallow_account_management = true\naccount_autocreate = true\n"
        + filters,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), f"{sys.argv[3]}_{sys.argv[4]}", sys.argv[5])
