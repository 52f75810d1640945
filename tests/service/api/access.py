"""Who may ask what, as `access_table.txt` says it: the callers, the table, and what the gate answers."""

from dataclasses import dataclass
from pathlib import Path

from service.api.gate import Access, Gate
from service.errors import ServiceError
from service.settings import Settings

KEY, OTHER, ADMIN, BAD = "an-inference-key-0", "another-key-00001", "the-admin-key-0000", "nobody-knows-this-0"
CALLERS: tuple[str | None, ...] = (None, BAD, KEY, ADMIN)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW")
TABLE = Path(__file__).with_name("access_table.txt")


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    method: str
    path: str
    expected: tuple[str, ...]  # for each of CALLERS


def table() -> list[Line]:
    lines = (line.split() for line in TABLE.read_text().splitlines() if not line.startswith("#"))
    return [Line(method, path, tuple(expected)) for method, path, *expected in lines]


def routes() -> dict[tuple[str, str], Line]:
    return {(line.method, line.path): line for line in table() if line.method != "other"}


def expected(method: str, path: str) -> tuple[str, ...]:
    """What the table says of a path, with {} for its parameters. A HEAD is a GET without its body."""
    found = routes().get(("GET" if method == "HEAD" else method, path))
    if found is None:
        [rest, changes] = [line for line in table() if line.method == "other"]
        found = changes if path.startswith(changes.path) else rest
    return found.expected


def guarded(**more: object) -> Gate:
    return Gate(Settings.model_validate({"api_keys": KEY, "admin_keys": ADMIN} | more))


def outcome(gate: Gate, access: Access, key: str | None) -> str:
    """`pass`, or the status."""
    sent = [] if key is None else [(b"host", b"x"), (b"authorization", f"Bearer {key}".encode())]
    try:
        gate.admit(access, sent)
    except ServiceError as error:
        return str(error.status)
    return "pass"


def outcomes(gate: Gate, access: Access) -> tuple[str, ...]:
    """For each of CALLERS."""
    return tuple(outcome(gate, access, key) for key in CALLERS)
