"""Work that cannot be interrupted, such as reading a file, for somebody who may stop waiting."""

from collections.abc import Callable
from concurrent.futures import Future, wait
from threading import Thread
from typing import TypeVar

POLL = 0.1
"""Seconds between checks."""

Result = TypeVar("Result")


def abandonable(work: Callable[[], Result], check: Callable[[], None]) -> Result:
    """Do work in a thread of its own, which is left to itself when `check` raises.

    It then goes on to its end, and nobody takes the result; it does not keep the program from
    ending.

    Parameters
    ----------
    work
        Whatever it raises is raised here.
    check
        Called ten times a second; raises when nobody waits any longer.
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    while not future.done():
        wait([future], POLL)
        check()
    return future.result()
