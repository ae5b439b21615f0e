"""The one exception that a user is meant to read, and what others say in one line."""

_LONGEST = 300


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and what would be right.

    The command line prints it without a traceback and exits with code 2.
    """


class DatasetError(UserError):
    """A dataset cannot be found, read or trusted."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, cut where it is long; its type where it says nothing."""
    lines = str(error).splitlines()
    text = lines[0].strip() if lines else ""
    return printed(text or type(error).__name__)[:_LONGEST]


def printed(text: str) -> str:
    """Text of a file as it may stand in a message: line breaks and what is not UTF-8 are escaped."""
    return text if text.isprintable() else ascii(text)
