"""The errors that a user can mend."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A fault in what the user gave: files, keys, settings.

    The message is one line that names the file or key, the fault and, where there is one, the way out. The command
    line prints it without a traceback and exits with code 2. Any other exception is a bug of ours.
    """


class StorageError(UserError):
    """A storage, or a disk, that cannot be read or written now: no connection, no room, no rights.

    Unlike other faults of the user it may pass without anybody's doing, so that whoever has time may try again.
    """


class SettingError(UserError):
    """A setting that cannot be used as it is, though another value of it may.

    Attributes:
        keys: the leaves of the configuration that the fault depends on.
    """

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys


@contextmanager
def depends_on(*keys: str) -> Iterator[None]:
    """Within the block, or the function that this decorates, a fault of the user's is one of these settings.

    Raises:
        SettingError: in the place of a `UserError`; what a storage lacks depends on no setting.
    """
    try:
        yield
    except (SettingError, StorageError):
        raise
    except UserError as error:
        raise SettingError(str(error), *keys) from error
