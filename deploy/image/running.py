"""An image as a cluster would run it, without an engine: in namespaces that util-linux makes. It knows an image by its
configuration alone, and nothing of what should be found in it.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image.building import Failed, Image

PATIENCE_S = 60

# Process 1 goes on as `chroot`, then as the service.
ENTER = """
set -eu
root=$1; models=$2; shift 2
mount --make-rprivate /
[ -z "$models" ] || mount --bind "$models" "$root/app/models"
mount --rbind -o ro "$root" "$root"
mount -o remount,bind,ro "$root"
[ -z "$models" ] || mount -o remount,bind,ro "$root/app/models"
mount -t proc -o ro proc "$root/proc"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/shm"
mount -t tmpfs -o size=64m,mode=1777 tmpfs "$root/dev/shm"
for device in null urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
mount -o remount,ro "$root/dev"
exec "$@"
"""


@dataclass(frozen=True)
class Container:
    """The image, running."""

    image: Image
    root: Path
    shell: "subprocess.Popen[bytes]"  # `unshare`, which ends as its child does
    port: int

    @property
    def pid(self) -> int:
        """Of its process 1, as we see it."""
        children = Path(f"/proc/{self.shell.pid}/task/{self.shell.pid}/children").read_text().split()
        if not children:
            raise Failed("the container has ended")
        return int(children[0])

    @property
    def command(self) -> str:
        """What process 1 runs by now."""
        return Path(f"/proc/{self.pid}/cmdline").read_text()

    def ask(self, path: str, body: object = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            content = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json"}
            connection.request("GET" if body is None else "POST", path, content, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def run(self, *command: str, user: str | None = None, **variables: str) -> "subprocess.CompletedProcess[str]":
        """One more process in it, as `docker exec`."""
        inside = ["nsenter", f"--target={self.pid}", "--mount", "--pid"]
        environment = self.image.environment | {"UNDERSTUDY_PORT": str(self.port)} | variables
        return subprocess.run(
            [*inside, *jailed(self.root, user or self.image.user, self.image.folder, list(command))],
            env=environment | {"PATH": f"{environment['PATH']}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def stop(self) -> tuple[int, float]:
        """SIGTERM to process 1: the exit code, and the seconds that it took."""
        began = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        code = self.shell.wait(PATIENCE_S)
        return code, time.monotonic() - began


def jailed(root: Path, user: str, folder: str, command: list[str]) -> list[str]:
    """As that user, with no rights and none to gain: of the bounding set there remains what chroot itself needs."""
    jail = ["setpriv", "--bounding-set=-all,+sys_chroot,+setuid,+setgid", "--inh-caps=-all", "--no-new-privs"]
    in_folder = ["sh", "-c", 'cd "$0" && exec "$@"', folder]
    return [*jail, "chroot", f"--userspec={user}", "--groups=", str(root), *in_folder, *command]


@contextmanager
def running(image: Image, root: Path, models: Path | None = None, **variables: str) -> Iterator[Container]:
    """Start it, and wait until it is ready."""
    with started(image, root, models, **variables) as container:
        await_that(container, is_ready)
        yield container


@contextmanager
def started(image: Image, root: Path, models: Path | None = None, **variables: str) -> Iterator[Container]:
    """On a free port."""
    port = free_port()
    environment = image.environment | {"UNDERSTUDY_PORT": str(port)} | variables
    # Programs of the host bring it up, and only then those of the image are found.
    found = environment | {"PATH": f"{environment['PATH']}:{os.environ['PATH']}"}
    spaces = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child=KILL"]
    inside = [
        "sh",
        "-c",
        ENTER,
        "enter",
        str(root),
        str(models or ""),
        *jailed(root, image.user, image.folder, image.command),
    ]
    with subprocess.Popen([*spaces, *inside], env=found, stdout=sys.stderr) as shell:  # ours is the page
        try:
            yield Container(image, root, shell, port)
        finally:
            shell.kill()


def await_that(container: Container, holds: Callable[[Container], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while container.shell.poll() is None and time.monotonic() < until:
        if holds(container):
            return
        time.sleep(0.01)
    raise Failed(f"the service did not start within {PATIENCE_S} s, or has ended: see what it wrote above")


def is_ready(container: Container) -> bool:
    try:
        return container.ask("/readyz")[0] == 200
    except OSError:
        return False


def hears_signals(container: Container) -> bool:
    """Until it has a handler of its own, process 1 is sent SIGTERM in vain."""
    try:
        caught = int(status_of(container)["SigCgt"][0], 16)
    except (Failed, FileNotFoundError):  # not there yet
        return False
    return bool(caught >> (signal.SIGTERM - 1) & 1) and container.command.startswith("python")


def status_of(container: Container) -> dict[str, list[str]]:
    lines = Path(f"/proc/{container.pid}/status").read_text().splitlines()
    return {name: value.split() for name, value in (line.split(":", 1) for line in lines)}


def free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])
