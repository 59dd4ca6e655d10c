"""The errors that a user can correct."""


class UserError(Exception):
    """A fault in what the user gave: files, keys, settings.

    The message is one line that names the file or key, the fault and, where there is one, the way out. The command
    line prints it without a traceback and exits with code 2. Any other exception is a bug of ours.
    """


class StorageError(UserError):
    """A storage or disk that cannot be read or written now: no connection, no space, no rights.

    Unlike other faults of the user it may be temporary, so that the caller may retry.
    """
