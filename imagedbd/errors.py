"""Every error that imagedbd raises on purpose.

::

    ImagedbError                   exit 70   failed
    ├── UsageError                 exit 2    the request cannot be understood
    │   ├── ExpressionError                  a --where expression, with the position of the fault
    │   ├── QueryPictureError                a query picture that cannot be read
    │   └── PictureNeededError               the daemon wants the bytes of a query picture (client only)
    ├── NothingMatchedError        exit 1    a search or a lookup without a result
    ├── DaemonNotRunningError      exit 69   nobody answers at the socket
    │   └── DaemonStoppingError              it is on its way out
    ├── DaemonBusyError            exit 70   it has too much to do for this one; ask again
    ├── LockHeldError              exit 75   another daemon works on this data folder
    ├── ConfigError                exit 78   a setting that cannot be used
    ├── WaitTimeoutError           exit 124  the time given was not enough
    ├── PausedError                exit 70   the user has paused the work that was asked for
    ├── PictureError               exit 70   one file cannot be indexed; never stops the others
    │   ├── DecoderLostError                 its decoder crashed or hung: try once more
    │   ├── PictureChangedError              it changed while it was being read: look again
    │   ├── PictureMissingError              it went away, or is not a regular file
    │   └── PictureUnreadError               its disk does not give it now: that says nothing of the file
    ├── ModelUnavailableError      exit 70   the weights are not on this machine
    │   └── ModelUnknownError                there is no model of that name
    ├── EmbedderError              exit 70   the model's process died
    ├── StoreError                 exit 70   the store refused or failed
    │   └── StoreUnreadableError   exit 78   the store needs ``imagedbd repair``
    ├── ServiceError               exit 70   systemd could not do it
    │   └── NoSystemdError                   this machine is not run by it
    └── ProtocolError              exit 70   daemon and client do not understand each other

Each carries a title (what happened, a few words) and a message (why, and what helps). The exit codes
follow ``sysexits.h`` where it has a fitting one: 69 EX_UNAVAILABLE, 70 EX_SOFTWARE, 75 EX_TEMPFAIL,
78 EX_CONFIG; 124 is what ``timeout(1)`` returns.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final


class ImagedbError(Exception):
    """Base of the tree.

    :param reason: a sentence for the user: what is wrong, …
    :param advice: … and another one: what helps, where that is not part of the reason.
    """

    title: ClassVar[str] = "Failed"
    exit_code: ClassVar[int] = 70

    def __init__(self, reason: str, advice: str = "") -> None:
        self.reason = reason
        self.message = f"{reason} {advice}" if advice else reason
        super().__init__(self.message)

    def details(self) -> dict[str, Any]:
        """Fields beside the message that a client may show; must be plain JSON values."""
        return {}


class UsageError(ImagedbError):
    title = "Bad request"
    exit_code = 2


class ExpressionError(UsageError):
    """A condition that cannot be parsed or does not fit the record's fields.

    :param position: offset in characters of the fault in the expression, from 0.
    :param expression: the text as the user wrote it.
    """

    title = "Bad expression"

    def __init__(self, message: str, *, position: int, expression: str) -> None:
        super().__init__(message)
        self.position = position
        self.expression = expression

    def details(self) -> dict[str, Any]:
        return {"position": self.position, "expression": self.expression}


class QueryPictureError(UsageError):
    title = "Query picture cannot be read"


class PictureNeededError(UsageError):
    """The daemon holds no vector for a query picture; the client sends its bytes instead."""

    title = "Picture needed"


class NothingMatchedError(ImagedbError):
    title = "Nothing matched"
    exit_code = 1


class DaemonNotRunningError(ImagedbError):
    title = "The daemon is not running"
    exit_code = 69


class DaemonStoppingError(DaemonNotRunningError):
    title = "The daemon is stopping"


class DaemonBusyError(ImagedbError):
    title = "The daemon is busy"


class LockHeldError(ImagedbError):
    title = "Another daemon is running"
    exit_code = 75


class ConfigError(ImagedbError):
    """:param faults: a sentence or two for each of the settings that cannot be used."""

    title = "Bad configuration"
    exit_code = 78

    def __init__(self, *faults: str) -> None:
        super().__init__(" ".join(faults))
        self.faults = faults


class WaitTimeoutError(ImagedbError):
    title = "Timed out"
    exit_code = 124


class PausedError(ImagedbError):
    title = "Paused"


class PictureError(ImagedbError):
    title = "Picture cannot be indexed"


class DecoderLostError(PictureError):
    """The process that read it crashed, or took too long. Others may have killed it: a second try tells."""

    title = "Picture cannot be decoded"


class PictureChangedError(PictureError):
    title = "Picture changed while it was read"


class PictureMissingError(PictureError):
    title = "Picture is gone"


class PictureUnreadError(PictureError):
    """A disk or a share, or this machine, failed while it was read. Nothing is known of what is in it."""

    title = "Picture cannot be read now"


class ModelUnavailableError(ImagedbError):
    title = "Model unavailable"


class ModelUnknownError(ModelUnavailableError):
    """There is no model of that name, so that none can be downloaded either."""


class EmbedderError(ImagedbError):
    title = "The embedder failed"


class StoreError(ImagedbError):
    title = "Store failed"


class StoreUnreadableError(StoreError):
    title = "Store unreadable"
    exit_code = 78


MENDING: Final = "Run `imagedbd repair` to mend the store."


class ServiceError(ImagedbError):
    title = "The service failed"


class NoSystemdError(ServiceError):
    title = "There is no systemd here"


class ProtocolError(ImagedbError):
    title = "Daemon and client disagree"


def _tree(root: type[ImagedbError]) -> dict[str, type[ImagedbError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found |= _tree(child)
    return found


ERRORS_BY_NAME: dict[str, type[ImagedbError]] = _tree(ImagedbError)
"""How an error's name on the wire becomes the same error again in the client."""
