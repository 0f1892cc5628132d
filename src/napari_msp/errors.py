"""What can go wrong by a user's hand, and what to do about it."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line that names the file (or option) and the mend. The command line prints
    it without a traceback and exits with status 2.
    """


class Cancelled(Exception):  # noqa: N818 - an outcome, not an error
    """The caller asked a running job to stop."""
