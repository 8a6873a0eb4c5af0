"""AsyncCalls: completions for an event loop, computed in a thread of their own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Optional

from . import _core

_thread = threading.local()  # .cancel: the token of the job that this thread computes
_END = object()


def current_token() -> Optional[_core.CancelToken]:
    """The token that generations begun in this thread obey, if it computes a job of AsyncCalls."""
    return getattr(_thread, "cancel", None)


class _Job:
    """One iterator, consumed in a thread; what it yields goes into an asyncio queue."""

    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[Any, Optional[BaseException]]] = asyncio.Queue()
        self._room = threading.Semaphore(2)  # items computed ahead of the reader
        self._make = make
        self.token = _core.CancelToken()
        self._thread = threading.Thread(target=self._run, name="spikingbrain", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        _thread.cancel = self.token
        try:
            items = self._make()
            try:
                for item in items:
                    self._room.acquire()
                    if self.token.cancelled:
                        break
                    self._put(item, None)
            finally:
                close = getattr(items, "close", None)
                if close is not None:
                    close()
            self._put(_END, None)
        except BaseException as error:  # handed to the reader
            self._put(_END, error)

    def _put(self, item: Any, error: Optional[BaseException]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (item, error))
        except RuntimeError:
            self.token.cancel()  # the loop is closed: nobody reads

    async def next(self) -> Any:
        item, error = await self._queue.get()
        if error is not None:
            raise error
        self._room.release()
        return item

    async def close(self) -> None:
        """Cancel what still runs, and wait for it: the session is the caller's again afterwards."""
        self.token.cancel()
        self._room.release()
        while self._thread.is_alive():
            await asyncio.sleep(0.001)


async def iterate(make: Callable[[], Iterator[Any]]) -> AsyncIterator[Any]:
    """The items of make(), computed in a thread. Leaving the loop, or cancelling the task, cancels the computation."""
    job = _Job(make)
    try:
        while (item := await job.next()) is not _END:
            yield item
    finally:
        await asyncio.shield(job.close())
