"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and what would be right.

    The command line prints it without a traceback and exits with code 2.
    """


class DatasetError(UserError):
    """A dataset cannot be found, read or trusted."""
