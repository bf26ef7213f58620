"""The outermost layer of every command: what the system refuses ends in a sentence and an exit code, never a traceback.

A reader that is gone (`gpt4rec … | head -1`) ends a command without a word and with exit code 1.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO

import typer

from service.cli.messages import complaint
from service.common.errors import ServiceError
from service.common.os_errors import sentence

# What writes to the standard output: the libraries of the command line.
_WRITERS = ("click", "rich", "typer")
_OUTPUT = "the standard output"


def ensure_utf8() -> None:
    """Starts the program again in UTF-8 mode where the locale knows ASCII alone (LC_ALL=C, cron, containers).

    Otherwise names of files that are not ASCII could not be read, and titles could not be written. The process keeps
    its number.
    """
    if sys.getfilesystemencoding() in ("ascii", "us-ascii") and not sys.flags.utf8_mode and sys.orig_argv[1:]:
        with contextlib.suppress(OSError):  # the program then goes on as it is
            os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - itself
    for stream in (sys.stdout, sys.stderr):
        # A character that the terminal lacks is written as its number.
        if hasattr(stream, "reconfigure") and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="backslashreplace")


def open_streams() -> None:
    """Opens standard streams that the caller has closed (cron, `<&-`) on the null device.

    Otherwise the next files that are opened would take their numbers, and what libraries print would go into these.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest free number, which is this one
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


@contextmanager
def sentences(program: str) -> Iterator[None]:
    """Runs a command under the outermost layer.

    Args:
        program: Name of the program, in front of each sentence.

    Raises:
        SystemExit: With the exit code of the command; 1 where the system refused something.
    """
    try:
        try:
            yield
        finally:
            _flush()
    except SystemExit:
        raise
    except ServiceError as error:
        fail(program, str(error))
    except BrokenPipeError:
        _leave()
    except UnicodeEncodeError as error:
        fail(program, f"{error.object[error.start : error.end]!r} cannot be written as {error.encoding}\n"
                      "  fix:   set a UTF-8 locale: export LC_ALL=C.UTF-8")  # fmt: skip
    except MemoryError:
        fail(program, "there is not enough memory\n  fix:   use a smaller data set, or a machine with more memory")
    except OSError as error:
        fail(program, sentence(_placed(error)))


def _placed(error: OSError) -> OSError:
    """Names the standard output in an error that its writers raised, because the system does not name it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    writer = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    if error.filename is None and error.errno and (writer == __name__ or writer.partition(".")[0] in _WRITERS):
        return OSError(error.errno, error.strerror, _OUTPUT)
    return error


def run_command(command: typer.Typer | Callable[..., object]) -> None:
    """Runs the command of a module that `python -m` started, under the outermost layer.

    Args:
        command: An application, or a function whose parameters are the options.

    Raises:
        SystemExit: With the exit code of the command; 1 where the system refused something.
    """
    open_streams()
    ensure_utf8()
    spec = sys.modules["__main__"].__spec__
    with sentences(spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem):
        try:
            if isinstance(command, typer.Typer):
                command()
            else:
                typer.run(command)
        except ModuleNotFoundError as error:
            raise ServiceError(f"{error.name} is not installed: pip install 'gpt4rec[train,cpu,load]'") from error


def fail(program: str, message: str) -> NoReturn:
    """Writes a sentence to the standard error, if that can be written, and exits with 1."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"{complaint(message, program)}\n")
        sys.stderr.flush()
    _leave()


def _flush() -> None:
    """Writes what is buffered while an error can still be reported.

    Raises:
        OSError: The standard output cannot be written.
    """
    with contextlib.suppress(ValueError):  # it is closed
        if sys.stdout is not None:
            sys.stdout.flush()


def _leave() -> NoReturn:
    """Exits with 1. What is still buffered for a reader that is gone, or a full disk, goes nowhere."""
    for stream in (sys.stdout, sys.stderr):
        _silence(stream)
    raise SystemExit(1)


def _silence(stream: TextIO | None) -> None:
    if stream is None:
        return
    try:
        stream.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
