"""Have a program run by `server`: ``client.py SOCKET MODULE ARGUMENT...``.

It hands over its arguments, environment, directory and standard streams, passes signals on, and ends as the program
does. It is started for every command, so it imports built-in modules only.
"""

import _signal
import _socket
import posix
import sys

PASSED_ON = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGTERM)


def main() -> None:
    """Run the program and end as it does."""
    where, *order = sys.argv[1:]
    words = [each.encode("utf-8", "surrogateescape") for each in order]
    variables = [name + b"=" + value for name, value in posix.environ.items()]
    parts = [posix.getcwdb(), str(len(words)).encode(), *words, *variables]
    body = b"\0".join(parts)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.connect(where)
    descriptors = b"".join(each.to_bytes(4, sys.byteorder) for each in (0, 1, 2))
    data = len(body).to_bytes(4, "big") + body
    sent = connection.sendmsg([data], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, descriptors)])
    connection.sendall(data[sent:])
    for number in PASSED_ON:
        _signal.signal(number, lambda number, _: connection.sendall(bytes([number])))
    # Nobody reads from a pipe whose other end this process still holds open.
    for descriptor in (0, 1):
        posix.close(descriptor)
    answer = connection.recv(16)
    if not answer:
        posix._exit(70)
    code = int(answer)
    if code < 0:
        if -code in PASSED_ON:
            _signal.signal(-code, _signal.SIG_DFL)
        posix.kill(posix.getpid(), -code)
    posix._exit(code)


main()
