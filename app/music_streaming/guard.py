"""Notices that the topic which is read is another one of the same name."""

from __future__ import annotations

import threading
from typing import Any

import tenacity

from music_streaming.broker import KafkaError, topic_identity
from music_streaming.offsets import TopicRecreatedError
from music_streaming.watchdog import StopFlag
from music_streaming.writer import Position

BROKER_SECONDS = 60


class TopicGuard:
    """Notices that the topic was deleted and created again since the query began."""

    def __init__(self, client: Any, position: Position, stopping: StopFlag) -> None:
        self._client = client
        self._position = position
        self._stopping = stopping
        # The query's thread and the main one ask.
        self._asking = threading.Lock()

    def check(self) -> None:
        """TopicRecreatedError where it is another topic of the same name.

        A broker that is away is waited for; KafkaError if it stays away.
        """
        patience = tenacity.stop_after_delay(BROKER_SECONDS)
        ask = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(KafkaError),
            wait=tenacity.wait_fixed(0.5),
            stop=lambda state: patience(state) or self._stopping.is_set(),
            reraise=True,
        )
        with self._asking:
            found = ask(topic_identity, self._client, self._position.topic)
        if found != self._position.topic_id:
            raise TopicRecreatedError.of(
                f"Topic {self._position.topic}",
                found=f"id {found}",
                wanted=f"id {self._position.topic_id}, which this query reads",
                remedy="none needed: the job starts again and reads the new topic from its beginning",
            )
