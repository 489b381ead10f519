"""How a command ends: which exception is which exit code, decided in this one place.

The twin of `rmt.cli.exits`.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

DONE, RESULT, BAD_INPUT, FAULT, INPUT_OUTPUT, INTERRUPTED = 0, 1, 2, 70, 74, 130

#: What every command's help says.
CODES = """exit codes: 0 done; 1 {result}; 2 bad input, or more than this machine holds;
70 a fault of this program (with a traceback); 74 a file or stream cannot be read or written (disk full, no
permission, output closed); 130 interrupted"""

#: Errors of the operating system that are a wrong path; all others are `INPUT_OUTPUT`.
_WRONG_PATH = {None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL}
#: Words by which torch's RuntimeErrors about the machine are known.
_MACHINE = ("allocate memory", "out of memory", "CUDA", "cuda", "device type", "NVIDIA driver")


def run(
    name: str,
    command: Callable[[], int],
    *,
    results: tuple[type[BaseException], ...] = (),
    interrupted: str = "interrupted",
) -> int:
    """Run a command and return its exit code; every exception becomes one sentence on standard error.

    Args:
        name: what the sentence starts with.
        command: returns the code of a command that ended well, or a result that is bad news.
        results: exceptions that are results (exit 1).
        interrupted: what is said after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names of files may hold bytes that are no text
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return command()
        finally:
            if sys.stdout is not None:  # it is None where a shell started the command with ``>&-``
                sys.stdout.flush()  # a full disk or closed pipe behind standard output is found here, not at exit
    except (Exception, KeyboardInterrupt) as error:
        return end(name, error, results=results, interrupted=interrupted)


def end(
    name: str,
    error: BaseException,
    *,
    results: tuple[type[BaseException], ...] = (),
    interrupted: str = "interrupted",
) -> int:
    """Say what an exception means, in one sentence on standard error, and return its exit code; see `run`."""
    if isinstance(error, KeyboardInterrupt):
        return _say(name, interrupted, INTERRUPTED)
    if isinstance(error, results):
        return _say(name, error, RESULT)
    if isinstance(error, OSError):
        _forget_output()
        said = "standard output was closed" if isinstance(error, BrokenPipeError) else error
        return _say(name, said, BAD_INPUT if error.errno in _WRONG_PATH else INPUT_OUTPUT)
    if isinstance(error, MemoryError):
        return _say(name, f"not enough memory ({error}); give smaller sizes", BAD_INPUT)
    if isinstance(error, RecursionError):
        return _say(name, f"the input is nested too deeply ({error})", BAD_INPUT)
    if isinstance(error, OverflowError):
        return _say(name, f"a number is too large ({error})", BAD_INPUT)
    if isinstance(error, ValueError | ImportError):
        return _say(name, error, BAD_INPUT)
    if any(word in str(error) for word in _MACHINE):
        return _say(name, str(error).strip().splitlines()[0], BAD_INPUT)
    traceback.print_exception(error)
    return _say(name, "this is a fault of the program, not of its input; please report it", FAULT)


class Parser(argparse.ArgumentParser):
    """A parser whose help fails like all output if it cannot be written; argparse's would end in 0."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not None and file is not sys.stderr:
            file.write(message)
        else:  # of a wrong usage the code tells enough
            super()._print_message(message, file)


def _say(name: str, message: object, code: int) -> int:
    with contextlib.suppress(OSError):  # if standard error is closed too, the code has to do
        if sys.stderr is not None:
            print(f"{name}: {message}", file=sys.stderr, flush=True)
    return code


def _forget_output() -> None:
    """Let what is left in the buffer of standard output go nowhere, lest the interpreter complain at its exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
