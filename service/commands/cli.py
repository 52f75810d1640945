"""The commands put together, and the one place where an error becomes a line and an exit code."""

import os
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException
from typer.main import get_command

from service.bundle.errors import BundleError
from service.commands import classify, config, models, serve
from service.commands.help import Command, CommandGroup
from service.commands.terminal import Code, Failed, Misused, complain, forget_stdout, have_streams
from service.release import ShowRelease
from service.settings import SettingProblem

NAME = "python -m service"


class _Commands(CommandGroup):
    names = ("serve", "models", "classify", "config", "bench")


app = typer.Typer(cls=_Commands, add_completion=False)
app.command(cls=Command)(serve.serve)
app.add_typer(models.app, name="models")
app.command(cls=Command)(classify.classify)
app.command(cls=Command)(config.config)


@app.callback(epilog="\n".join(["Exit codes:", *(f"{code.value:>5}  {code.meaning}" for code in Code)]))
def service(version: ShowRelease = False) -> None:
    """Serve bundles over HTTP, look at them, and classify texts without a server."""


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(context: typer.Context, arguments: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Measure students beside their teachers, and the service under load."""
    from service.bench.__main__ import app as benchmarks

    code = benchmarks(args=arguments or ["--help"], prog_name=context.command_path, standalone_mode=False)
    raise typer.Exit(code if isinstance(code, int) else Code.DONE)


def run() -> int:
    """Run the command of the command line, and say what went wrong in one line."""
    # Before tokenizers is loaded: its own threads would take cores from those of ONNX Runtime.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    have_streams()
    try:
        # Not by calling it, which would make exit codes of its own out of errors.
        command = get_command(app)
        with command.make_context(NAME, sys.argv[1:] or ["--help"]) as context:
            command.invoke(context)
        sys.stdout.flush()
    except typer.Exit as wanted:
        return wanted.exit_code
    except BrokenPipeError:
        forget_stdout()
        return Code.DONE
    except TyperException as error:
        return _complained(Code.USAGE, _misused(error))
    except Exception as error:
        return _complained(*_meaning(error))
    return Code.DONE


def _complained(code: Code, problem: str) -> int:
    complain(problem)
    return code


def _misused(error: TyperException) -> str:
    said, asked = error.format_message().rstrip("."), getattr(error, "ctx", None)
    return said if asked is None else f"{said} (see {asked.command_path} --help)"


def _meaning(error: Exception) -> tuple[Code, str]:
    from service.catalogue import NoSuchModel
    from service.offline.errors import OfflineError

    match error:
        case SettingProblem() | Misused() | OfflineError():
            return Code.USAGE, str(error)
        case NoSuchModel():
            return Code.USAGE, f"{error}; choose one of them"
        case BundleError():
            return Code.BUNDLE, str(error)
        case Failed():
            return Code.FAILED, str(error)
        case PermissionError():
            return Code.FAILED, f"{error.filename}: {error.strerror}; which user runs this?"
        case OSError():
            return Code.FAILED, f"{error.filename or 'while writing'}: {error.strerror or error}"
    return Code.FAILED, f"{type(error).__name__}: {error}; this is a fault of ours, please report it"
