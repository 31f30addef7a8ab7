"""Threads for what is said to destinations: some for each, so that one that never answers holds no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

#: A job or a document, and a destination.
Key = tuple[str, str]


class Lanes:
    """What is under way to each destination.

    Parameters
    ----------
    name : str
        Of the threads.
    each : int
        So many for a destination; more wait for one of them.
    """

    def __init__(self, name: str, each: int) -> None:
        self._name, self._each = name, each
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._under_way: dict[Key, Future[None]] = {}

    def sweep(self) -> None:
        """Forget what has ended. Until the next time, what ends counts as under way: rows may be older."""
        self._under_way = {key: future for key, future in self._under_way.items() if not future.done()}

    def __iter__(self) -> Iterator[Key]:
        return iter(self._under_way)

    def __len__(self) -> int:
        return len(self._under_way)

    def begin(self, key: Key, do: Callable[..., None], *arguments: object) -> None:
        """Have this done in a thread of the destination, as soon as one is free."""
        _, destination = key
        if destination not in self._pools:
            self._pools[destination] = ThreadPoolExecutor(self._each, thread_name_prefix=self._name)
        self._under_way[key] = self._pools[destination].submit(do, *arguments)

    def stop(self) -> None:
        """Let what is under way end; begin nothing that waits."""
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools.values():
            pool.shutdown(wait=True)
