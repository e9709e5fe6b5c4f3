"""What a ListenBrainz client submits, checked by the rules of https://listenbrainz.readthedocs.io (JSON).

A batch is taken or refused as a whole, and the listen to blame is named.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from music_streaming.event import normalise
from music_streaming.scrobble.plays import Heard, RefusedError, checked_text, started_at

MAX_LISTENS = 1_000
LISTEN_BYTES = 10_240
BODY_BYTES = MAX_LISTENS * LISTEN_BYTES
MAX_TAGS, TAG_CHARACTERS = 50, 64
TYPES = ("single", "import", "playing_now")
MBIDS = ("recording_mbid", "release_mbid", "release_group_mbid", "track_mbid")
MBID_LISTS = ("artist_mbids", "work_mbids")


@dataclass(frozen=True)
class Submission:
    """What one request holds; `playing` is the one listen of type playing_now, which is no play."""

    plays: tuple[Heard, ...] = ()
    playing: Heard | None = None


def parse_json(body: bytes) -> Any:
    """The JSON document of a request; RefusedError where it is none."""
    try:
        return json.loads(body.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"The body: found no JSON document ({error}), wanted one in UTF-8") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a request; RefusedError where it is none."""
    document = parse_json(body)
    if not isinstance(document, dict):
        raise RefusedError("The body: found no JSON object, wanted one")
    return document


def parse_submission(body: bytes, now: datetime) -> Submission:
    """The listens of a body of submit-listens; RefusedError saying which one breaks which rule."""
    document = json_object(body)
    kind, payload = document.get("listen_type"), document.get("payload")
    if kind not in TYPES:
        raise RefusedError(f"listen_type: found {kind!r:.60}, wanted one of {', '.join(TYPES)}")
    if not isinstance(payload, list) or not payload:
        raise RefusedError("payload: found no listens, wanted a list of one or more")
    if len(payload) > MAX_LISTENS:
        raise RefusedError(
            f"payload: found {len(payload)} listens, wanted at most {MAX_LISTENS} in a request"
        )
    if len(body) > len(payload) * LISTEN_BYTES:
        raise RefusedError(
            f"The body: found {len(body)} bytes for {len(payload)} listens, "
            f"wanted at most {LISTEN_BYTES} each"
        )
    if kind != "import" and len(payload) > 1:
        raise RefusedError(f"payload: found {len(payload)} listens, wanted one for listen_type {kind}")
    heard = tuple(
        _listen(listen, f"payload[{number}]", None if kind == "playing_now" else now)
        for number, listen in enumerate(payload)
    )
    return Submission(playing=heard[0]) if kind == "playing_now" else Submission(plays=heard)


def _listen(sent: Any, place: str, now: datetime | None) -> Heard:
    """One listen; now is None for one that plays now and so has no listened_at."""
    if not isinstance(sent, dict):
        raise RefusedError(f"{place}: found no object, wanted a listen")
    wanted = {"track_metadata"} | ({"listened_at"} if now else set())
    if missing := wanted - sent.keys():
        raise RefusedError(f"{place}: found no {', '.join(sorted(missing))}, wanted it in every listen")
    if extra := sent.keys() - wanted:
        raise RefusedError(
            f"{place}: found {', '.join(sorted(extra))[:80]}, wanted only {', '.join(sorted(wanted))}"
        )
    started = started_at(sent["listened_at"], f"{place}.listened_at", now) if now else None
    metadata = sent["track_metadata"]
    if not isinstance(metadata, dict):
        raise RefusedError(f"{place}.track_metadata: found no object, wanted one")
    place = f"{place}.track_metadata"
    _refuse_nul(metadata, place)
    release = metadata.get("release_name")
    if release is not None and not isinstance(release, str):
        raise RefusedError(f"{place}.release_name: found no text, wanted one")
    more = metadata.get("additional_info")
    more = more if isinstance(more, dict) else {}
    _check_more(more, f"{place}.additional_info")
    return Heard(
        title=checked_text(metadata.get("track_name"), f"{place}.track_name"),
        artist=checked_text(metadata.get("artist_name"), f"{place}.artist_name"),
        started=started,
        album=_text(release),
        duration_ms=_milliseconds(more),
        genre=_genre(more),
        player=_text(more.get("media_player")) or _text(more.get("submission_client")),
        metadata=metadata,
    )


def _check_more(more: dict[str, Any], place: str) -> None:
    if "duration" in more and "duration_ms" in more:
        raise RefusedError(f"{place}: found duration and duration_ms, wanted one of them")
    for name in (*MBIDS, *MBID_LISTS):
        found = more.get(name)
        ids = found if name in MBID_LISTS and isinstance(found, list) else [found]
        for one in ids:
            if one and not is_uuid(one):
                raise RefusedError(f"{place}.{name}: found {one!r:.60}, wanted an MBID (a UUID)")
    tags = more.get("tags")
    if isinstance(tags, list):
        if len(tags) > MAX_TAGS:
            raise RefusedError(f"{place}.tags: found {len(tags)} tags, wanted at most {MAX_TAGS}")
        if any(isinstance(tag, str) and len(tag) > TAG_CHARACTERS for tag in tags):
            raise RefusedError(
                f"{place}.tags: found a longer tag, wanted at most {TAG_CHARACTERS} characters"
            )


def is_uuid(sent: Any) -> bool:
    """Whether it is the text of a UUID."""
    try:
        uuid.UUID(sent)
    except (AttributeError, TypeError, ValueError):
        return False
    return True


def _refuse_nul(value: Any, place: str) -> None:
    # The document is as deep as Python's own JSON reader goes.
    waiting = [(value, place)]
    while waiting:
        one, where = waiting.pop()
        if isinstance(one, str) and "\0" in one:
            raise RefusedError(f"{where}: found a NUL character, wanted a text without")
        if isinstance(one, dict):
            waiting += [(inner, f"{where}.{name}"[:200]) for name, inner in one.items()]
            waiting += [(name, where) for name in one]
        elif isinstance(one, list):
            waiting += [(inner, where) for inner in one]


def _text(sent: Any) -> str | None:
    return (normalise(sent) or None) if isinstance(sent, str) else None


def _genre(more: dict[str, Any]) -> str | None:
    tags = more.get("tags")
    return next((text for tag in tags if (text := _text(tag))), None) if isinstance(tags, list) else None


def _milliseconds(more: dict[str, Any]) -> Any:
    if "duration" not in more:
        return more.get("duration_ms")
    try:
        return float(more["duration"]) * 1000
    except (TypeError, ValueError):
        return None
