"""What a library raises while it reads somebody's file becomes one line that names the file and the place in it."""

import contextlib
from collections.abc import Iterator

from jaxrl_srpo.errors import DatasetError, UserError, first_line


@contextlib.contextmanager
def readable(where: str) -> Iterator[None]:
    """Raises whatever is raised inside as one `DatasetError`.

    h5py, Minari, Gymnasium's spaces and pyarrow meet damaged files with exceptions of every kind, which have no common
    base. Only reading belongs inside: a fault of ours would look like one of the file.

    Args:
      where: file, and field or episode, for the message.

    Raises:
      DatasetError: reading failed.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise DatasetError(f"{where} cannot be read: {first_line(error)}") from error


def require_text(where: str, value: object) -> str:
    """A name that can be printed and written to files.

    Args:
      where: whose name it is, for the message.
      value: what stands there; bytes are taken for UTF-8.

    Raises:
      DatasetError: it is no text, not UTF-8, or has line breaks or other control characters.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", errors="surrogateescape")
    if not isinstance(value, str):
        raise DatasetError(f"{where} is {type(value).__name__}; expected text")
    if not value.isprintable():
        raise DatasetError(f"{where} is {value!a}; expected printable text in UTF-8")
    return value
