"""The job as a hand-written Python consumer: dictionaries, one thread."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import orjson
from consumer import FIELDS, METRICS, Flow, run

_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_values = itemgetter(*FIELDS)


def text(value: Any) -> str:
    """A value in the text format of COPY."""
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return value if value.isprintable() and "\\" not in value else value.translate(_ESCAPES)
    return str(value)


def window(event_time: str, minutes: int) -> str:
    """The start of the window that the time falls in."""
    minute = int(event_time[14:16]) // minutes * minutes
    return f"{event_time[:14]}{minute:02}:00Z"


def work(flow: Flow) -> None:
    for values, ends in flow.batches():
        lines = []
        groups: dict[tuple[int, str, str, str], list[Any]] = {}
        for value in values:
            play = orjson.loads(value)
            lines.append("\t".join(map(text, _values(play))))
            listened, duration = play["listened_ms"], play["duration_ms"]
            for kind, (minutes, first, second) in METRICS.items():
                key = (kind, window(play["event_time"], minutes), play[first], play[second])
                group = groups.get(key)
                if group is None:
                    group = groups[key] = [0, 0, 0, 0, 0, set()]
                group[0] += 1
                group[1] += play["skipped"]
                group[2] += play["liked"]
                group[3] += listened
                group[4] += duration
                group[5].add(play["user_id"])
        metrics = (
            "\t".join(map(text, (*key, *counts, " ".join(listeners)))) + "\n"
            for key, (*counts, listeners) in groups.items()
        )
        flow.write("", ("\n".join(lines) + "\n").encode(), ["".join(metrics).encode()], ends)


if __name__ == "__main__":
    run(work)
