"""What the contract says of an event that is at hand as a dict."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from music_streaming.event import Rejected, judge


def check(event: dict[str, Any], arrival: datetime) -> Rejected | None:
    """The reject that `event` is, or None for a play."""
    try:
        judge(json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass"), arrival)
    except Rejected as reject:
        return reject
    return None
