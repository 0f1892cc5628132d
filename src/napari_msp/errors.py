"""What can go wrong by a user's hand, and what to do about it."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line that names the file (or option) and the mend. The command line prints
    it without a traceback and exits with status 2.
    """


class Cancelled(Exception):  # noqa: N818 - an outcome, not an error
    """The caller asked a running job to stop."""


def first_reason(error: Exception) -> str:
    """Give the first complaint of a validation in one line."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = str(first["msg"]).removeprefix("Value error, ")
        return f"{where}: {reason}" if where else reason
    return str(error).splitlines()[0]
