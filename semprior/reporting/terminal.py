"""The parts that the command lines of `semprior` and `tune` share: one-line errors, exit codes, a console.

A fault of the user's is one line on standard error and exit code 2; anything else is a bug and shows its traceback.
Nothing heavy is imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from semprior.errors import UserError
from semprior.io.foreign_text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_SPELLED = {"±": "+-"}
"""Replacements of signs that a terminal's encoding lacks; other letters lose their accents or become question marks."""


def command_line() -> typer.Typer:
    """An empty command line, to be run with `run`."""
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
        program: its name, which begins every error line.
        arguments: of the command line; None for the process's own.

    Returns:
        The exit code: 0, 2 for a fault of the user's, 130 when interrupted.
    """
    replace_unencodable_output()
    try:
        result = app(list(arguments) if arguments is not None else None, prog_name=program, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except UserError as error:
        print_error(program, str(error))
    except typer.TyperException as error:
        print_error(program, _usage(error, program))
    except (KeyboardInterrupt, typer.Abort):
        print_error(program, "interrupted")
        return 130
    except BrokenPipeError:
        sys.stdout = None  # nobody reads it any more, and flushing it at exit would fail
        return 1
    except OSError as error:
        if error.errno is None:
            raise
        print_error(program, f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror))
    return 2


def replace_unencodable_output() -> None:
    """Let standard output and standard error replace characters that their encoding lacks, instead of failing."""
    codecs.register_error("spelled", _spell)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="spelled")


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    plain = (
        _SPELLED.get(sign) or unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode() for sign in signs
    )
    return "".join(text or "?" for text in plain), error.end


def print_error(program: str, text: str) -> None:
    """Print one line on standard error; whatever the text quotes is made `visible`."""
    print(f"{program}: {visible(' '.join(text.split()))}", file=sys.stderr)


def console() -> Console:
    """The console on standard output, which takes names like ``[/x].png`` and ``:fire:`` for what they are."""
    from rich.console import Console

    return Console(markup=False, emoji=False, highlight=False)


def _usage(error: typer.TyperException, program: str) -> str:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else program
    return f"{' '.join(error.format_message().split())} (see `{path} --help`)"


def say(console: Console, text: str) -> None:
    """Print a line at once and in full, whatever the width of the terminal; what it quotes is made `visible`."""
    console.print(visible(text), markup=False, emoji=False, highlight=False, soft_wrap=True)
    console.file.flush()


def print_lines(text: str) -> None:
    """Print a part of a log at once; its lines are made `visible`, and no line is added."""
    print("\n".join(map(visible, text.split("\n"))), end="", flush=True)


def cell(text: str) -> Text:
    """A text for a table, whose headings and cells would otherwise be read as markup; it is made `visible`."""
    from rich.text import Text

    return Text(visible(text))


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
