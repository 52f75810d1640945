"""Every knob of the service, with the reason to turn it. A field is a flag and a variable `UNDERSTUDY_*`.

Built once, in `__main__`, and passed down: nothing else reads the environment.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.bundle.manifest import Precision

PREFIX = "UNDERSTUDY_"

Threads = Annotated[int, Field(ge=1, le=256)]
Rows = Annotated[int, Field(ge=1, le=100_000)]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Flag before environment before default."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid")

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 lets other machines in.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    models: Path = Field(Path("models"), description="Folder of bundles, <name>/<version>/; the newest is served.")
    default: str | None = Field(
        None, description="Model that answers when a request names none; unset: the first student by name."
    )
    precision: Precision = Field(
        Precision.EXACT,
        description="fast: quicker where a bundle has it, but a row's scores may depend on its neighbours.",
    )
    student_threads: Threads = Field(
        1, description="Threads inside one run of a student; a small LSTM seldom gains from more."
    )
    student_workers: Threads = Field(
        1, description="Batches of a student that run at once; more where cores are idle under load."
    )
    teacher_threads: Threads = Field(
        2, description="Threads inside one run of a teacher; more answer sooner and take cores from students."
    )
    max_batch_rows: Rows = Field(
        32, description="Most rows in a batch; more help wide machines, fewer keep lengths alike."
    )
    max_batch_tokens: int = Field(
        8192,
        ge=1,
        le=10_000_000,
        description="Most tokens in a batch, padding included; bounds the memory and time of one run.",
    )
    max_queue_rows: Rows = Field(
        1024, description="Rows that may wait for a model before 429; fewer fail sooner, more wait longer."
    )
    max_request_rows: Rows = Field(64, description="Most texts in a request; lower it if single ones wait too long.")
    max_body_bytes: int = Field(
        256 * 1024,
        ge=64,
        le=2**30,
        description="Largest body that is read; a larger one is answered with 413.",
    )
    max_text_chars: int = Field(
        8192,
        ge=1,
        le=10_000_000,
        description="Longest text; a longer one is answered with 422, never cut by chars.",
    )
    settle_seconds: Seconds = Field(
        0, description="After SIGTERM: time for load balancers to see /readyz fail before the port closes."
    )
    drain_seconds: Seconds = Field(
        30, description="After SIGTERM: longest wait for requests that are under way; then they are cut."
    )
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        "warning", description="Least severe log line that is written; no level ever writes texts."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.max_request_rows > self.max_queue_rows:
            raise ValueError("max_request_rows must not exceed max_queue_rows, or such a request can never enter")
        return self


def problem_line(error: ValidationError) -> str:
    """The first thing that is wrong, in one line, named as flag and variable."""
    problem = error.errors(include_url=False, include_context=False)[0]
    if not problem["loc"]:
        return problem["msg"].removeprefix("Value error, ")
    field = str(problem["loc"][0])
    flag = "--" + field.replace("_", "-")
    return f"{flag} (or {PREFIX}{field.upper()}): {problem['msg']}, got {problem['input']!r}"
