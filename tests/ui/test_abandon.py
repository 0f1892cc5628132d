"""Work that cannot be interrupted is left to itself when nobody waits any longer."""

import threading

import pytest

from napari_msp.errors import Cancelled
from napari_msp.ui.abandon import abandonable


def test_its_result_is_given():
    assert abandonable(lambda: 42, lambda: None) == 42


def test_its_error_is_raised():
    def work():
        raise KeyError("prisma")

    with pytest.raises(KeyError, match="prisma"):
        abandonable(work, lambda: None)


def test_it_is_abandoned_while_it_goes_on():
    go, ended = threading.Event(), threading.Event()

    def work():
        go.wait()
        ended.set()

    def check():
        raise Cancelled

    with pytest.raises(Cancelled):
        abandonable(work, check)
    assert not ended.is_set()
    go.set()
    assert ended.wait(10)
