"""Every knob of the service, with the reason to turn it. A field is a flag and a variable `UNDERSTUDY_*`.

Built once, at the edge, by `environment.load`, and passed down. It knows nothing of where values come from.
"""

import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from service.bundle.devices import Device
from service.bundle.engines import Engine, Isa
from service.bundle.manifest import Precision
from service.strategy import Strategy, WhenBusy

PREFIX = "UNDERSTUDY_"

Threads = Annotated[int, Field(ge=1, le=256)]
Rows = Annotated[int, Field(ge=1, le=100_000)]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
Patience = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]


ORIGIN = re.compile(r"\*|https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?")
"""What a browser sends as Origin: no path, nothing in capitals."""


class SettingProblem(Exception):
    """A setting asks for what is not there. The message is one line for whoever starts the service."""


def _listed(value: Any) -> Any:
    """Variables and flags hold one string."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Listed = Annotated[tuple[str, ...] | None, BeforeValidator(_listed)]


class Group(Enum):
    """What a setting is about: a panel of `serve --help` and a part of the table in docs/settings.md, in this order."""

    LISTENING = "Listening"
    MODELS = "Models"
    ENGINE = "Engine"
    PAIR = "Student and teacher"
    CAPTURE = "Texts to learn from"
    QUEUE = "Batches and queue"
    REQUESTS = "Requests"
    CONNECTIONS = "Connections"
    ACCESS = "Who may ask"
    OBSERVING = "Logs, metrics and traces"
    STOPPING = "Stopping"


class Settings(BaseModel):
    """All fields are flat, and text can spell each: that is what flags and variables are."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    host: Annotated[str, Group.LISTENING] = Field(
        "127.0.0.1", description="Address to listen on; 0.0.0.0 lets other machines in."
    )
    port: Annotated[int, Group.LISTENING] = Field(
        8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one."
    )
    workers: Annotated[Threads, Group.LISTENING] = Field(
        1, description="Processes that share the port, each with its own models and queues; one a core answers most."
    )
    models: Annotated[Path, Group.MODELS] = Field(
        Path("models"), description="Folder of bundles, <name>/<version>/; the newest is served."
    )
    default: Annotated[str | None, Group.MODELS] = Field(
        None, description="Model that answers when a request names none; unset: the first student by name."
    )
    versions: Annotated[int, Group.MODELS] = Field(
        1, ge=1, le=100, description="How many of the newest versions of each model are served; each costs memory."
    )
    reload_seconds: Annotated[Seconds, Group.MODELS] = Field(
        5, description="How often the folder of models is looked at for new versions; 0: only on SIGHUP or when asked."
    )
    precision: Annotated[Precision, Group.ENGINE] = Field(
        Precision.EXACT,
        description="fast: quicker where a bundle has it, but a row's scores may depend on its neighbours.",
    )
    device: Annotated[Device, Group.ENGINE] = Field(
        Device.AUTO, description="auto: a GPU where onnxruntime-gpu finds one, else the CPU; cuda insists on it."
    )
    engine: Annotated[Engine, Group.ENGINE] = Field(
        Engine.AUTO,
        description="What runs BiLSTMs. auto: native where it is installed and proves itself, else onnxruntime.",
    )
    isa: Annotated[Isa, Group.ENGINE] = Field(
        Isa.AUTO, description="Instructions that the native engine uses; auto: the quickest. All give the same answers."
    )
    student_threads: Annotated[Threads, Group.ENGINE] = Field(
        1, description="Threads inside one run of a student; a small LSTM seldom gains from more."
    )
    student_workers: Annotated[Threads, Group.ENGINE] = Field(
        1, description="Batches of a student that run at once; more where cores are idle under load."
    )
    teacher_threads: Annotated[Threads | None, Group.ENGINE] = Field(
        None,
        description="Threads inside one run of a teacher; unset: a worker's share of the cores that the quota leaves.",
    )
    teacher: Annotated[str | None, Group.PAIR] = Field(
        None, description="Teacher of every student that it fits; unset: the one in the student's calibration, or any."
    )
    strategy: Annotated[Strategy, Group.PAIR] = Field(
        Strategy.STUDENT,
        description="Who answers: cascade asks the teacher where the student is unsure; /v1/classify may name another.",
    )
    cascade_threshold: Annotated[float | None, Group.PAIR] = Field(
        None, ge=0, le=1, description="Margin from which on a student is sure; unset: as its calibration found."
    )
    escalation_budget: Annotated[float, Group.PAIR] = Field(
        0.5, ge=0, le=1, description="Share of time that a worker's teachers may run for unsure students; 1: no limit."
    )
    escalation_seconds: Annotated[Patience, Group.PAIR] = Field(
        1.0, description="Longest wait of an unsure student for its teacher; then its own answer goes out."
    )
    when_teacher_busy: Annotated[WhenBusy, Group.PAIR] = Field(
        WhenBusy.DEGRADE,
        description="degrade: the unsure student's answer goes out, and says so; refuse: the request gets 429 or 503.",
    )
    teacher_nice: Annotated[int, Group.PAIR] = Field(
        19,
        ge=0,
        le=19,
        description="By how much teachers give way to students on a core; 0: not at all, 10: a tenth is theirs. Linux.",
    )
    watch_share: Annotated[float, Group.PAIR] = Field(
        0,
        ge=0,
        le=1,
        description="Share of a student's answers that its teacher re-scores when it has nothing else to do; 0: none.",
    )
    watch_queue: Annotated[Rows, Group.PAIR] = Field(
        256, description="Sampled answers that may wait for an idle teacher; what finds no room is dropped and counted."
    )
    watch_window: Annotated[Rows, Group.PAIR] = Field(
        1000, description="Re-scored answers that count as lately: fewer notice a change sooner, more are surer of it."
    )
    drift: Annotated[bool, Group.PAIR] = Field(
        True, description="Hold all of a student's texts against the profile in its bundle; some 2 µs a text."
    )
    capture: Annotated[Path | None, Group.CAPTURE] = Field(
        None, description="SQLite file that keeps some texts, to learn from later; unset: no text is ever kept."
    )
    capture_share: Annotated[float, Group.CAPTURE] = Field(
        0.02, ge=0, le=1, description="Share of texts that are kept whatever was answered: a fair sample of them."
    )
    capture_margin: Annotated[float, Group.CAPTURE] = Field(
        0, ge=0, le=1, description="Texts with a smaller margin are all kept: there is most to learn from them."
    )
    capture_mb: Annotated[int, Group.CAPTURE] = Field(
        64, ge=1, le=2**20, description="Most MiB that the file and its log take; the oldest texts make room."
    )
    capture_days: Annotated[float, Group.CAPTURE] = Field(
        30,
        gt=0,
        le=36500,
        description="Older texts are deleted while a service with --capture runs; your privacy rules may ask for less.",
    )
    capture_redact: Annotated[Listed, Group.CAPTURE] = Field(
        None,
        description="What to take out before a text is kept: emails, numbers, urls, or your own as module:function.",
    )
    max_batch_rows: Annotated[Rows, Group.QUEUE] = Field(
        32, description="Most rows in a batch; more help wide machines, fewer keep lengths alike."
    )
    max_batch_tokens: Annotated[int, Group.QUEUE] = Field(
        8192,
        ge=1,
        le=10_000_000,
        description="Most tokens in a batch, padding included; bounds the memory and time of one run.",
    )
    inline_ms: Annotated[float, Group.QUEUE] = Field(
        0.5,
        ge=0,
        le=100,
        description="A few rows that should run in less are run on the event loop itself; 0: always in a thread.",
    )
    max_queue_rows: Annotated[Rows, Group.QUEUE] = Field(
        512, description="Rows that may wait for a model before 429; fewer fail sooner, more wait longer."
    )
    max_queue_tokens: Annotated[int, Group.QUEUE] = Field(
        1 << 18,
        ge=1,
        le=10**9,
        description="Tokens that may wait for a model before 429; bounds the wait for long texts.",
    )
    max_client_share: Annotated[float, Group.QUEUE] = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of a queue that one client (an API key, else an address) may hold; 1 behind a proxy.",
    )
    max_run_seconds: Annotated[float, Group.QUEUE] = Field(
        10.0,
        gt=0,
        le=3600,
        description="A run of a batch that takes longer hangs: its rows fail, a new worker takes over.",
    )
    request_seconds: Annotated[float, Group.REQUESTS] = Field(
        10.0,
        gt=0,
        le=3600,
        description="Longest wait for an answer before 504; the header x-request-timeout may ask for less.",
    )
    max_request_rows: Annotated[Rows, Group.REQUESTS] = Field(
        256, description="Most texts in a request; lower it if single ones wait too long."
    )
    max_body_bytes: Annotated[int, Group.REQUESTS] = Field(
        256 * 1024,
        ge=64,
        le=2**30,
        description="Largest body that is read; a larger one is answered with 413.",
    )
    max_text_chars: Annotated[int, Group.REQUESTS] = Field(
        8192,
        ge=1,
        le=10_000_000,
        description="Longest text; a longer one is answered with 422, never cut by chars.",
    )
    max_connections: Annotated[int, Group.CONNECTIONS] = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Open connections of a worker; over it the idlest is closed, or the newcomer gets 503.",
    )
    max_peer_connections: Annotated[int, Group.CONNECTIONS] = Field(
        256,
        ge=0,
        le=1_000_000,
        description="The same for one address (IPv6: a /64); 0: no such limit, as behind a proxy.",
    )
    first_byte_seconds: Annotated[Patience, Group.CONNECTIONS] = Field(
        5, description="A connection that stays silent is closed after so long; more for very distant clients."
    )
    head_seconds: Annotated[Patience, Group.CONNECTIONS] = Field(
        5, description="From the first byte of a request to the end of its headers, else 408; they fit in few packets."
    )
    body_seconds: Annotated[Patience, Group.CONNECTIONS] = Field(
        10, description="From there to the end of the body, else 408; more where large bodies come over slow lines."
    )
    answer_seconds: Annotated[Patience, Group.CONNECTIONS] = Field(
        10, description="A client that does not take its answer is cut after so long; until then we keep the answer."
    )
    min_bytes_per_second: Annotated[int, Group.CONNECTIONS] = Field(
        1024, ge=1, le=2**30, description="A body that arrives, or an answer that leaves, more slowly is cut."
    )
    max_head_bytes: Annotated[int, Group.CONNECTIONS] = Field(
        16 * 1024, ge=256, le=2**20, description="Request line and headers, else 431; more for very long cookies."
    )
    max_headers: Annotated[int, Group.CONNECTIONS] = Field(
        64, ge=1, le=10_000, description="Headers of a request, else 431; each costs the time of one more look."
    )
    max_target_bytes: Annotated[int, Group.CONNECTIONS] = Field(
        2048, ge=1, le=2**20, description="Path and query, else 414; texts come in bodies, so that targets are short."
    )
    max_unfinished_bytes: Annotated[int, Group.CONNECTIONS] = Field(
        8 * 2**20,
        ge=1024,
        le=2**40,
        description="Bodies that are still arriving, all together; over it the oldest gets 503: it bounds memory.",
    )
    api_keys: Annotated[SecretStr | None, Group.ACCESS] = Field(
        None,
        description="Keys that may ask for answers: KEY or NAME:KEY, commas between; unset, with no file: all may ask.",
    )
    api_keys_file: Annotated[Path | None, Group.ACCESS] = Field(
        None, description="File with such keys, one a line; read again on SIGHUP and every reload_seconds."
    )
    admin_keys: Annotated[SecretStr | None, Group.ACCESS] = Field(
        None, description="Keys that may load and unload models too; unset, with no file: nobody may."
    )
    admin_keys_file: Annotated[Path | None, Group.ACCESS] = Field(
        None, description="File with admin keys; read again like the other."
    )
    public_metrics: Annotated[bool, Group.ACCESS] = Field(
        False, description="Let /metrics be read without a key even where answers need one: for scrapers."
    )
    cors_origins: Annotated[Listed, Group.ACCESS] = Field(
        None, description="Web pages that may ask from a browser, as https://a.example,https://b.example; * lets all."
    )
    playground: Annotated[bool, Group.ACCESS] = Field(
        True, description="Serve the playground at /; the page is open to all, whatever it asks needs a key as ever."
    )
    log_level: Annotated[Literal["critical", "error", "warning", "info", "debug"], Group.OBSERVING] = Field(
        "warning", description="Least severe log line that is written; no level ever writes texts."
    )
    log_format: Annotated[Literal["human", "json"], Group.OBSERVING] = Field(
        "human", description="json: one object a line, for machines that collect logs; human: for people's eyes."
    )
    access_log: Annotated[bool, Group.OBSERVING] = Field(
        False, description="One line for every request, without its text; some 20 µs each, so metrics may do better."
    )
    traces: Annotated[bool, Group.OBSERVING] = Field(
        False,
        description="Send OpenTelemetry traces, as the OTEL_* variables say; needs the extra `traces`.",
    )
    settle_seconds: Annotated[Seconds, Group.STOPPING] = Field(
        0, description="After SIGTERM: time for load balancers to see /readyz fail before the port closes."
    )
    drain_seconds: Annotated[Seconds, Group.STOPPING] = Field(
        15, description="After SIGTERM: longest wait for requests that are under way; then they are cut."
    )

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if not all(ORIGIN.fullmatch(origin) for origin in origins or ()):
            raise ValueError("each is * or scheme://host or scheme://host:port, in small letters and with no path")
        return origins

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.max_request_rows > self.max_queue_rows * self.max_client_share:
            raise ValueError(
                "max_request_rows must not exceed max_queue_rows x max_client_share, or such a request can never enter"
            )
        if self.max_body_bytes > self.max_unfinished_bytes:
            raise ValueError("max_body_bytes must not exceed max_unfinished_bytes, or such a body can never arrive")
        return self


def problem_line(error: ValidationError) -> str:
    """The first thing that is wrong, in one line, named as flag and variable."""
    problem = error.errors(include_url=False, include_context=False)[0]
    what = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return what
    field = str(problem["loc"][0])
    flag = "--" + field.replace("_", "-")
    got = "" if is_secret(field) else f", got {problem['input']!r}"
    return f"{flag} (or {PREFIX}{field.upper()}): {what}{got}"


def is_secret(field: str) -> bool:
    """May the value of this field never be shown?"""
    return field in Settings.model_fields and SecretStr in get_args(Settings.model_fields[field].annotation)
