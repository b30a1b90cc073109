"""An address to listen on: opened before anything else is begun, so that a taken port is told at once."""

from __future__ import annotations

import errno
import socket

from oncetask.cli.exits import BadInput, NotDone

__all__ = ["listen", "url_of"]


def listen(host: str, port: int) -> socket.socket:
    """Open a socket; connections wait in it until somebody takes them. `port` 0: one that is free.

    Of a name's addresses the first of IPv4 is taken, or its first. Raises BadInput for a host that has no address, and
    NotDone where the address cannot be had.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        msg = f"--host {host!r} has no address: {error}"
        raise BadInput(msg) from error
    family, _, _, _, address = min(found, key=lambda one: one[0] is not socket.AF_INET)
    try:
        return socket.create_server(address[:2], family=family)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "another program listens there (--port 0 takes a port that is free)" if taken else error.strerror
        msg = f"cannot listen on {host}, port {port}: {why}"
        raise NotDone(msg) from error


def url_of(host: str, listening: socket.socket) -> str:
    """Give the address under which a listening socket is reached, its real port in it."""
    port = listening.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
