"""The one error of the embedded stack."""

from __future__ import annotations


class StackError(Exception):
    """Something about the stack that its user has to know, said in one line.

    ``log_tail`` holds the last lines of the log that tells more; it is kept out of the message so that the message
    stays one line.
    """

    def __init__(self, message: str, *, log_tail: str = "") -> None:
        super().__init__(" ".join(message.split()))
        self.log_tail = log_tail
