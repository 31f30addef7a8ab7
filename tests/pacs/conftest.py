"""One bench for all tests against real servers: Orthanc, Redis, our node and one worker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "deploy")]

from bench import (  # noqa: E402
    Bench,
    Node,
    Orthanc,
    Redis,
    Worker,
    free_port,
    storescp,  # noqa: F401  a fixture
    tool,
)

from synthesis.phantom import PhantomStudy, write_study  # noqa: E402


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """Redis, empty."""
    tool("redis-server")
    server = Redis(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def node_port() -> int:
    """The port of the shared node, which Orthanc must know before the node is there."""
    return free_port()


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory, node_port: int) -> Iterator[Orthanc]:
    """Orthanc, empty; it knows the node as ``node``."""
    tool("Orthanc")
    server = Orthanc(tmp_path_factory.mktemp("orthanc"), node_port)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def node(
    tmp_path_factory: pytest.TempPathFactory, redis: Redis, orthanc: Orthanc, node_port: int
) -> Iterator[Node]:
    """Our node; Orthanc is its peer ``pacs``."""
    server = Node(tmp_path_factory.mktemp("node"), redis.url, node_port)
    server.add_peer("pacs", orthanc.ae_title, orthanc.port)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def bench(
    tmp_path_factory: pytest.TempPathFactory, redis: Redis, orthanc: Orthanc, node: Node
) -> Iterator[Bench]:
    """Everything, with one worker."""
    worker = Worker(node, tmp_path_factory.mktemp("worker"))
    worker.start()
    yield Bench(orthanc, redis, node, worker)
    worker.stop()


@pytest.fixture
def phantom(tmp_path: Path) -> Callable[..., PhantomStudy]:
    """Write a study of the phantom: `phantom(seed, **arguments of write_study)`; a seed for each test."""

    def make(seed: int, **arguments: object) -> PhantomStudy:
        return write_study(tmp_path / f"phantom-{seed}", seed=seed, **arguments)  # type: ignore[arg-type]

    return make
