"""An asyncio event loop without sockets, signals or threads: callbacks and timers only.

The stock loops wake themselves through a socket pair, which WASI does not have.
"""

import asyncio
import time
from asyncio import base_events, events


class _Sleeper:
    """Stands where a selector would: nothing to watch, only time passes."""

    def select(self, timeout):
        if timeout is None:
            raise RuntimeError("the coroutine waits for something that never comes")
        if timeout > 0:
            time.sleep(timeout)
        return ()

    def close(self):
        pass


class Loop(base_events.BaseEventLoop):
    def __init__(self):
        super().__init__()
        self._selector = _Sleeper()

    def _process_events(self, event_list):
        pass

    def _write_to_self(self):
        pass


class Policy(events._BaseDefaultEventLoopPolicy if hasattr(events, "_BaseDefaultEventLoopPolicy") else object):
    _loop_factory = Loop

    def get_event_loop(self):
        """Makes one where there is none, as CPython did up to 3.13 and the jail's may do."""
        if self._local._loop is None:
            self.set_event_loop(self.new_event_loop())
        return self._local._loop


def install():
    """Makes `asyncio.run` and `new_event_loop` use `Loop`."""
    events._event_loop_policy = Policy()
    asyncio.SelectorEventLoop = Loop
    asyncio.EventLoop = Loop
