"""How a command ends: which exception is which exit code, decided in this one place.

The twin of `glora.cli.exits`, since neither package may import the other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Callable

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
            sys.stdout.flush()  # a full disk or closed pipe behind standard output is found here, not at exit
    except KeyboardInterrupt:
        return _say(name, interrupted, INTERRUPTED)
    except results as error:
        return _say(name, error, RESULT)
    except OSError as error:
        _forget_output()
        said = "standard output was closed" if isinstance(error, BrokenPipeError) else error
        return _say(name, said, BAD_INPUT if error.errno in _WRONG_PATH else INPUT_OUTPUT)
    except MemoryError as error:
        return _say(name, f"not enough memory ({error}); give smaller sizes", BAD_INPUT)
    except RecursionError as error:
        return _say(name, f"the input is nested too deeply ({error})", BAD_INPUT)
    except OverflowError as error:
        return _say(name, f"a number is too large ({error})", BAD_INPUT)
    except (ValueError, ImportError) as error:
        return _say(name, error, BAD_INPUT)
    except Exception as error:
        if any(word in str(error) for word in _MACHINE):
            return _say(name, str(error).strip().splitlines()[0], BAD_INPUT)
        traceback.print_exc()
        return _say(name, "this is a fault of the program, not of its input; please report it", FAULT)


def _say(name: str, message: object, code: int) -> int:
    with contextlib.suppress(OSError):  # if standard error is closed too, the code has to do
        print(f"{name}: {message}", file=sys.stderr, flush=True)
    return code


def _forget_output() -> None:
    """Let what is left in the buffer of standard output go nowhere, lest the interpreter complain at its exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
