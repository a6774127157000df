"""Which process something was made in: what a GPU holds for one is of no use to its forks."""

import os


class Process:
    """The process that it was made in; copied or unpickled, the one where that happened. A fork is another."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[type["Process"], tuple[()]]:
        return Process, ()

    def is_this(self) -> bool:
        """Whether it is the one that runs."""
        return self._pid == os.getpid()
