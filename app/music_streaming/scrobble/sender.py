"""Plays into Kafka: `send` returns once the broker has every record, on all replicas in sync."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool

from music_streaming import broker
from music_streaming.settings import KafkaSettings

log = logging.getLogger("music_streaming.scrobble.sender")

DELIVERY_SECONDS = 8.0
MAX_SIZE = 65_536
# Not asked again for every play while it is away.
RETRY_SECONDS = 1.0


class BrokerAwayError(Exception):
    """Kafka did not acknowledge: the player keeps its plays."""


class Sender:
    """One idempotent client for all requests, made when it is first needed and anew after a failure."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._client: Any = None
        self._lock = asyncio.Lock()
        self._refused_at = float("-inf")
        self._refusal = ""

    async def send(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Send the records (key, value) and wait until all are acknowledged; else BrokerAwayError."""
        client = await self._connected()
        loop = asyncio.get_running_loop()
        settled: asyncio.Queue[Exception | None] = asyncio.Queue()

        def settle(outcome: Exception | None) -> None:
            # The client's own thread; a loop that has ended waits for nothing any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settled.put_nowait, outcome)

        def hand_over() -> None:
            for key, value in records:
                future = client.send(self._kafka.topic, key=key, value=value)
                future.add_callback(lambda _metadata: settle(None))
                future.add_errback(settle)

        try:
            await run_in_threadpool(hand_over)
            async with asyncio.timeout(DELIVERY_SECONDS * 2):
                for _ in records:
                    if error := await settled.get():
                        raise error
        except (broker.KafkaError, TimeoutError) as error:
            await self._drop(client)
            log.warning("Kafka did not take %d plays: %s: %s", len(records), type(error).__name__, error)
            raise BrokerAwayError(f"{type(error).__name__}: {error}") from error

    async def _connected(self) -> Any:
        async with self._lock:
            if self._client is None:
                loop = asyncio.get_running_loop()
                if loop.time() - self._refused_at < RETRY_SECONDS:
                    raise BrokerAwayError(self._refusal)
                try:
                    self._client = await run_in_threadpool(self._connect)
                except (broker.KafkaError, BrokerAwayError) as error:
                    self._refused_at, self._refusal = loop.time(), str(error)
                    raise BrokerAwayError(str(error)) from error
            return self._client

    def _connect(self) -> Any:
        # Asked first: a client that cannot connect leaves sockets behind.
        if refusal := broker.probe(self._kafka.bootstrap):
            raise BrokerAwayError(refusal)
        return broker.producer(
            self._kafka, MAX_SIZE, client_id="music-scrobble", delivery_seconds=DELIVERY_SECONDS
        )

    async def _drop(self, client: Any) -> None:
        async with self._lock:
            if self._client is not client:
                return
            self._client = None
        await run_in_threadpool(broker.close_producer, client)

    async def close(self) -> None:
        """Close the client; every request has its answer by then."""
        if self._client is not None:
            await self._drop(self._client)
