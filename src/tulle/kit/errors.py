"""World failures as few exceptions with a stable code, and the exit codes that the command line maps them to.

User mistakes are `Problem`s, not exceptions. Bugs are neither: they crash the task that has them.
"""

from __future__ import annotations

from enum import IntEnum

from tulle.kit.problem import Problem


class Exit(IntEnum):
    """Process exit codes, as users of kubectl, istioctl and sysexits expect them."""

    OK = 0
    ERROR = 1
    USAGE = 64
    BAD_DATA = 65
    FINDINGS = 79


class TulleError(Exception):
    """A failure of the world that a person must hear of: `message` says what, `hint` what to do, `code` is stable."""

    code = "error"
    exit = Exit.ERROR

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class BadData(TulleError):
    """Input with mistakes in it; carries every problem found."""

    code = "bad-data"
    exit = Exit.BAD_DATA

    def __init__(self, problems: list[Problem], *, hint: str = "") -> None:
        super().__init__("\n".join(str(problem) for problem in problems), hint=hint)
        self.problems = problems


class Unavailable(TulleError):
    """A program, socket or server that is needed does not answer."""

    code = "unavailable"


class Refused(TulleError):
    """The machine or a peer does not permit what was asked: a privilege, a port, an identity."""

    code = "refused"


class Corrupt(TulleError):
    """State on disk that cannot be trusted; never overwritten."""

    code = "corrupt"
