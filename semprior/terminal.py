"""What the command lines of `semprior` and `tune` share: one-line errors, exit codes, a console.

A fault in what the user gave is one line on standard error and exit code 2; anything else is a bug and shows its
traceback. Nothing heavy is imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from semprior.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

_Usage: type[Exception] = typer.BadParameter.__mro__[2]
"""What is wrong with a command's arguments; typer takes it from click, or from a copy of click of its own."""


_SPELLED = {"±": "+-"}
"""What stands for a sign that a terminal lacks; others lose their accents, or are a question mark."""


def command_line() -> typer.Typer:
    """An empty command line whose errors `run` shows."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run(app: typer.Typer, program: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        app: the commands.
        program: its name, before every complaint.
        arguments: of the command line; none: the process's own.

    Returns:
        The exit code: 0, 2 for a fault in what was given, 130 when interrupted.
    """
    show_what_can_be_shown()
    try:
        result = app(list(arguments) if arguments is not None else None, prog_name=program, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except UserError as error:
        complain(program, str(error))
    except _Usage as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
        else:
            complain(program, _usage(error, program))
    except (KeyboardInterrupt, typer.Abort):
        complain(program, "interrupted")
        return 130
    except BrokenPipeError:
        sys.stdout = None  # type: ignore[assignment]  # nobody reads it any more
        return 1
    except OSError as error:
        if error.errno is None:
            raise
        complain(program, f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))
    return 2


def show_what_can_be_shown() -> None:
    """Let standard output and standard error replace what their encoding lacks, where they would fail at it."""
    codecs.register_error("spelled", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    plain = (
        _SPELLED.get(sign) or unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() for sign in lacking
    )
    return "".join(text or "?" for text in plain), error.end


def complain(program: str, text: str) -> None:
    """One line on standard error."""
    print(f"{program}: {' '.join(text.split())}", file=sys.stderr)


def console() -> Console:
    """The terminal, or what stands in its place."""
    from rich.console import Console

    return Console()


def _usage(error: Any, program: str) -> str:  # noqa: ANN401
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else program
    return f"{' '.join(error.format_message().split())} (see `{path} --help`)"
