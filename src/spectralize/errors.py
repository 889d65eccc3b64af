"""What can go wrong, by who can mend it."""


class SpectralizeError(Exception):
    """Root of the errors that this package raises on purpose: each message is one line for a person."""


class ConfigError(SpectralizeError):
    """A parameter, source or profile is not what it should be; nothing has run yet."""


class ServiceError(SpectralizeError):
    """S3 or the database did not answer, or refused us. The same call may succeed later."""


class LedgerError(SpectralizeError):
    """The ledger does not hold what it must: a batch is missing, or its sums do not add up."""


class ReadError(SpectralizeError):
    """What was asked of the store cannot be read: there is no such recording, profile or window, or no longer."""


class GateError(SpectralizeError):
    """A batch has more failed or rejected objects than its source allows."""


class MigrationError(SpectralizeError):
    """The schema in the database and the migrations in this version contradict each other."""


class ObjectError(SpectralizeError):
    """What became of one object instead of features.

    Parameters
    ----------
    reason_class
        What operators count and filter by.
    reason
        One line that says what is wrong with this object.
    """

    def __init__(self, reason_class: str, reason: str) -> None:
        super().__init__(reason)
        self.reason_class = reason_class
        self.reason = reason

    def __reduce__(self) -> tuple[type["ObjectError"], tuple[str, str]]:
        # It travels between processes, and exceptions are rebuilt from their message alone.
        return type(self), (self.reason_class, self.reason)


class RejectedObjectError(ObjectError):
    """An object cannot become features, and that is the object's fault. Its class is one of `tables.REJECT_CLASSES`."""


class FailedObjectError(ObjectError):
    """An object could not be read although it may be sound: S3 refuses or garbles it. It is tried again by the next run.

    Its class is S3's own code, such as `AccessDenied` or `InvalidObjectState`.
    """


def as_one_line(text: str) -> str:
    """Show hostile text, such as a key, as printable characters on one line."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
