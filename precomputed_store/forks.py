"""What a process that is forked while other threads work must not inherit: locks held by them.

A child has one thread. Whatever lock another thread of the parent held at the fork is held
for ever in the child. So objects take new locks there, and a fork waits for imports that
other threads have begun: an import holds a lock of its module, and modules are loaded when
they are first used, which may be anywhere.
"""

from __future__ import annotations

# These register functions before and after forks. Were they imported while a fork waits here,
# only the latter would be called.
import concurrent.futures.thread
import logging  # noqa: F401
import os
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Protocol
from weakref import WeakValueDictionary

__all__ = ["restart_in_children"]

_LONGEST_WAIT_SECONDS = 10.0
_IMPORTLIB = "<frozen importlib._bootstrap>"


class _Restarts(Protocol):
    def restart(self) -> None: ...


# By identity: some compare equal.
_restarting: WeakValueDictionary[int, _Restarts] = WeakValueDictionary()


def restart_in_children(thing: _Restarts) -> None:
    """Have `restart` of an object called in every forked child, to give it new locks.

    The method is called here once, too. Of objects that other threads were using, only what
    `restart` sets is certain to be consistent.
    """
    thing.restart()
    _restarting[id(thing)] = thing


def _wait_for_imports() -> None:
    deadline = time.monotonic() + _LONGEST_WAIT_SECONDS
    while _is_inconvenient() and time.monotonic() < deadline:
        time.sleep(0.001)


def _is_inconvenient() -> bool:
    # The futures' own function before a fork takes this lock: others would run until it is free.
    lock = getattr(concurrent.futures.thread, "_global_shutdown_lock", None)
    return (lock is not None and lock.locked()) or any(map(_imports, _other_threads()))


def _other_threads() -> Iterator[FrameType]:
    this = threading.get_ident()
    return (frame for thread, frame in sys._current_frames().items() if thread != this)


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTLIB:
            return True
        frame = frame.f_back
    return False


def _restart_all() -> None:
    for thing in list(_restarting.values()):
        thing.restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_wait_for_imports, after_in_child=_restart_all)
