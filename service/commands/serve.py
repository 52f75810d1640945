"""`serve`: the settings, the port, then the service in one process or several."""

import os
import select
import sys
from contextlib import suppress
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from service.commands.flags import with_flags
from service.commands.terminal import STARTED, Failed, say
from service.environment import load

if TYPE_CHECKING:
    import socket

    from service.processes.line import Line, Ready, Said
    from service.settings import Settings

SPARE_S = 3.0
"""What a worker may take beyond its own deadlines before it is killed."""


@with_flags
def serve(**flags: Any) -> None:
    """Serve all models of a folder over HTTP.

    Each flag is also a variable: --max-batch-rows is UNDERSTUDY_MAX_BATCH_ROWS. The flag wins.
    """
    settings = load(flags, os.environ).settings
    doors = _listen(settings)
    code = _alone(settings, doors[0]) if settings.workers == 1 else _together(settings, doors)
    if code:
        raise SystemExit(code)


def _alone(settings: "Settings", door: "socket.socket") -> int:
    # Imported here and below, since the other commands do not need the HTTP stack, nor the parent of workers.
    from service.worker import live

    def tell(said: "Said") -> None:
        if said.ready is not None:
            _tell_ready(said.ready)

    return live(settings, door, tell)


def _together(settings: "Settings", doors: "list[socket.socket]") -> int:
    from service.processes.parent import Workers
    from service.telemetry.logs import configure_logs
    from service.telemetry.metrics import sharing

    configure_logs(settings)
    stop_s = settings.settle_seconds + settings.drain_seconds + SPARE_S
    with sharing() as forget:
        work = partial(_work, settings)
        return Workers(work, doors, stop_s=stop_s, on_ready=_tell_ready, on_end=forget).run()


def _work(settings: "Settings", door: "socket.socket", line: "Line") -> int:
    """In a worker's process."""
    from service.processes.line import Said
    from service.worker import live

    try:
        return live(settings, door, line.tell, line)
    except Exception as failure:  # the parent says why it ends
        line.tell(Said(failure=failure))
        return 1


def _tell_ready(ready: "Ready") -> None:
    with suppress(OSError, ValueError):  # nobody reads what we say, or it is closed: no reason not to serve
        if os.name == "posix" and not select.select((), (sys.stdout,), (), 0)[1]:
            return  # full: writing would hold us up until somebody reads
        say(f"{ready.url} ready in {perf_counter() - STARTED:.2f} s: {ready.what}")


def _listen(settings: "Settings") -> "list[socket.socket]":
    """Take the port first: a port that is taken should not cost the time of opening models. One socket a worker."""
    import socket

    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        doors: list[socket.socket] = []
        for _ in range(settings.workers):
            door = socket.socket(family, kind, protocol)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if settings.workers > 1:  # and only then: two services on one port would each get half of the requests
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            door.bind(address)
            address = door.getsockname()  # port 0 becomes the same port for all
            doors.append(door)
    except OSError as error:
        place = f"{settings.host}:{settings.port}"
        problem = f"{place}: cannot listen there ({error.strerror}); choose another --host or --port"
        raise Failed(problem) from error
    return doors
