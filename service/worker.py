"""A process that serves: from the settings and a socket to the exit code.

The only one there is, or one of several; see `processes`. It knows what must be set up in which order.
"""

import gc
import os
import socket
import threading
from collections.abc import Callable

from service.api.gate import with_cors
from service.app import create_app
from service.bundle.engines import Engine
from service.lifecycle import Lifecycle
from service.predictors import Predictor
from service.processes.line import Line, Ready, Said
from service.routes import dialect_of
from service.server import Server, configure, run
from service.settings import Settings
from service.telemetry.logs import configure_logs
from service.telemetry.metrics import share
from service.wire.heads import Reason

OURS = threading.main_thread()


def live(settings: Settings, door: socket.socket, tell: Callable[[Said], None], line: Line | None = None) -> int:
    """Serve until a signal comes. Raises SettingProblem, and whatever kept the models from opening.

    `line` is given where there are several workers, which share their metrics and what they are asked.
    """
    log = configure_logs(settings)
    if line is not None:
        share(line.name)
    app = create_app(settings, line)
    metrics = app.desk.metrics

    def beat() -> None:
        if line is not None:
            metrics.sample()
            tell(Said())

    whole = with_cors(app, settings.cors_origins)
    # What CORS adds to answers is added on the way through ASGI.
    hot = app.hot if whole is app else _none_is_hot
    config = configure(whole, settings, metrics.refusals(Reason), dialect_of, hot)
    server = Server(config, app.lifecycle, settings, beat)

    def loaded(lifecycle: Lifecycle) -> None:
        if lifecycle.failure is not None:
            server.should_exit = True
        elif lifecycle.unready() is None:
            _spare_the_collector()
            default = lifecycle.catalogue.default.manifest.name
            what = f"{_listed(lifecycle)}; default {default}; {app.desk.gate}"
            tell(Said(ready=Ready(_url(door), what, default)))

    app.lifecycle.on_loaded = loaded
    run(server, door)
    if app.lifecycle.failure is not None:
        raise app.lifecycle.failure
    log.flush()
    if any(thread.is_alive() and not thread.daemon for thread in threading.enumerate() if thread is not OURS):
        os._exit(0)  # a thread that hangs in foreign code would keep the process for ever; everyone has their answer
    return 0


def _spare_the_collector() -> None:
    """What is here now stays, and a request leaves hardly any cycles: no need to look through it all so often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _none_is_hot(_method: str, _path: str) -> None:
    return None


def _url(door: socket.socket) -> str:
    host, port = door.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listed(lifecycle: Lifecycle) -> str:
    return ", ".join(f"{predictor.name} ({_told(predictor)})" for predictor in lifecycle.catalogue.predictors)


def _told(predictor: Predictor) -> str:
    told = f"{predictor.manifest.role}, {predictor.bundle.precision}"
    return f"{told}, {Engine.NATIVE}" if predictor.bundle.chosen.engine is Engine.NATIVE else told
