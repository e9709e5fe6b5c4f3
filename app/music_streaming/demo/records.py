"""Plays as Kafka records: JSON, event_ids, and values that break the contract."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np

from music_streaming.demo.listeners import DEVICES
from music_streaming.demo.plays import END_REASONS, START_REASONS, Plays
from music_streaming.demo.rng import Ints
from music_streaming.event import SUBSCRIPTION_TYPES


class Record(NamedTuple):
    """One Kafka record: Unix time in ms at which it arrives, user_id, JSON; both in UTF-8."""

    due_ms: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Block:
    """The records that arrived within one hour, in order of arrival."""

    due_ms: list[int]
    keys: list[bytes]
    values: list[bytes]

    def __len__(self) -> int:
        return len(self.values)

    def records(self) -> Iterator[Record]:
        return map(Record, self.due_ms, self.keys, self.values)


def value(event_id: str, time: str, tail: str) -> str:
    """The JSON of a play; time: RFC 3339 in UTC, without its Z."""
    return f'{{"event_id":"{event_id}","event_time":"{time}Z",{tail}'


def _boolean(bit: int) -> str:
    return "true" if bit else "false"


_FLAGS = [
    f'"skipped":{_boolean(flag & 4)},"liked":{_boolean(flag & 2)},"completed":{_boolean(flag & 1)},'
    for flag in range(8)
]
_PLANS = [f'"subscription_type":"{plan}",' for plan in SUBSCRIPTION_TYPES]
_DEVICES = [
    f'"device_type":"{kind}","os":"{system}","player":"{player}",' for kind, system, player in DEVICES
]
_REASONS = [
    f'"reason_start":"{begun}","reason_end":"{ended}"}}' for begun in START_REASONS for ended in END_REASONS
]


def tails(rows: Plays, songs: Sequence[str], people: Sequence[str]) -> list[str]:
    """The JSON of plays from behind event_time on; songs, people: the parts that tell of each."""
    flags = rows.skipped * 4 + rows.liked * 2 + rows.completed
    reasons = rows.start_reason * len(END_REASONS) + rows.end_reason
    columns = (
        rows.listener,
        rows.session_start_ms // 1000,
        rows.song,
        rows.listened_ms,
        flags,
        rows.subscription,
    )
    lists = (column.tolist() for column in (*columns, rows.device, reasons))
    return [
        f'"source":"demo","user_id":"listener-{listener:06d}","session_id":"{listener:06d}-{begun:x}",{songs[song]},'
        f'"listened_ms":{listened},{_FLAGS[flag]}{_PLANS[plan]}{people[listener]},{_DEVICES[device]}{_REASONS[reason]}'
        for listener, begun, song, listened, flag, plan, device, reason in zip(*lists, strict=True)
    ]


def times(moments_ms: Ints) -> list[str]:
    """Moments in Unix ms as `value` wants them."""
    texts: list[str] = np.datetime_as_string(moments_ms.astype("datetime64[ms]")).tolist()
    return texts


def event_ids(high: np.ndarray, low: np.ndarray, version: int = 4) -> list[str]:
    """UUIDs from two 64-bit numbers each: version 4 is random, 8 is not."""
    high = (high & np.uint64(0xFFFFFFFFFFFF0FFF)) | np.uint64(version << 12)
    low = (low & np.uint64(0x3FFFFFFFFFFFFFFF)) | np.uint64(0x8000000000000000)
    text = np.stack([high, low], axis=1).astype(">u8").tobytes().hex()
    return [
        f"{word[:8]}-{word[8:12]}-{word[12:16]}-{word[16:20]}-{word[20:]}"
        for word in (text[at : at + 32] for at in range(0, len(text), 32))
    ]


_SPOILERS: tuple[Callable[[bytes], bytes], ...] = (
    lambda value: value[: len(value) // 2],
    lambda value: value.replace(b'"event_id"', b'"id"', 1),
    lambda value: value.replace(b'"event_time":"', b'"event_time":"yesterday ', 1),
    lambda value: value.replace(b'"user_id"', b'"userId"', 1),
    lambda value: value.replace(b'"title":"', b'"title":"\\u0000', 1),
    lambda value: value.replace(b'"artist":"', b'"artist":"\xff\xfe', 1),
    lambda value: value.replace(b'"source":"', b'"source":"radio ', 1),
    lambda value: b"[" + value + b"]",
    lambda value: b"play " + value,
    lambda value: b"",
)


def spoiled(value: bytes, way: int) -> bytes:
    """`value` with one of ten faults, each of which the contract calls a reject."""
    return _SPOILERS[way % len(_SPOILERS)](value)


def write_jsonl(
    stream: BinaryIO, blocks: Iterable[Block], progress: Callable[[Block], None] | None = None
) -> int:
    """Write each value of `blocks` as a line; returns how many. `progress` is called after each block."""
    written = 0
    for block in blocks:
        if block.values:
            stream.write(b"\n".join(block.values) + b"\n")
        written += len(block)
        if progress is not None:
            progress(block)
    return written
