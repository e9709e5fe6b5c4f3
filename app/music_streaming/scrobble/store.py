"""What the server asks PostgreSQL: plays of a listener, what plays now, feedback, and latest imports.

Each function takes a cursor; times are aware.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg2.extras import Json

from music_streaming.event import song_id
from music_streaming.scrobble.plays import Heard

# Of a song whose length is not known; ListenBrainz forgets it after as long.
UNKNOWN_LENGTH = timedelta(minutes=10)
_OWN = "source IN ('scrobble', 'import') AND user_id = %(listener)s"


def listens(
    cursor: Any, listener: str, *, after: int | None, before: int | None, count: int
) -> list[dict[str, Any]]:
    """Plays of the listener between two Unix times (neither included), newest first, as ListenBrainz has it.

    With `after` alone the oldest ones behind it, so that a client can go on from there.
    """
    order = "ASC" if after is not None and before is None else "DESC"
    cursor.execute(
        "SELECT title, artist, album, duration_ms, player, event_time, ingested_at FROM stream_events "  # noqa: S608  ASC or DESC
        f"WHERE {_OWN} AND (%(after)s::bigint IS NULL OR event_time >= to_timestamp(%(after)s + 1)) "
        "AND (%(before)s::bigint IS NULL OR event_time < to_timestamp(%(before)s)) "
        f"ORDER BY event_time {order} LIMIT %(count)s",
        {"listener": listener, "after": after, "before": before, "count": count},
    )
    found = [_listen(listener, *row) for row in cursor.fetchall()]
    return sorted(found, key=lambda listen: -listen["listened_at"])


def _listen(
    listener: str, title: str, artist: str, album: str | None, duration_ms: int | None, *rest: Any
) -> dict[str, Any]:
    player, event_time, ingested_at = rest
    more = {"media_player": player, "duration_ms": duration_ms, "recording_msid": song_id(artist, title)}
    return {
        "user_name": listener,
        "listened_at": int(event_time.timestamp()),
        "inserted_at": int(ingested_at.timestamp()),
        "recording_msid": song_id(artist, title),
        "track_metadata": {
            "track_name": title,
            "artist_name": artist,
            "release_name": album,
            "additional_info": {name: one for name, one in more.items() if one is not None},
        },
    }


def span_of_listens(cursor: Any, listener: str) -> tuple[int, int, int]:
    """How many plays the listener has, and the Unix times of the oldest and the newest; 0 without any."""
    cursor.execute(
        "SELECT count(*), coalesce(extract(epoch FROM min(event_time)), 0)::bigint, "  # noqa: S608  a constant
        f"coalesce(extract(epoch FROM max(event_time)), 0)::bigint FROM stream_events WHERE {_OWN}",
        {"listener": listener},
    )
    count, oldest, newest = cursor.fetchone()
    return count, oldest, newest


def remove_listen(cursor: Any, listener: str, at: int, song: str) -> int:
    """Take the plays of the song out that began in this Unix second; returns how many there were."""
    cursor.execute(
        f"SELECT event_id, artist, title FROM stream_events WHERE {_OWN} "  # noqa: S608  a constant
        "AND event_time >= to_timestamp(%(at)s) AND event_time < to_timestamp(%(at)s + 1)",
        {"listener": listener, "at": at},
    )
    meant = [event_id for event_id, artist, title in cursor.fetchall() if song_id(artist, title) == song]
    for event_id in meant:
        cursor.execute("SELECT remove_own_play(%s, %s)", (event_id, listener))
    return len(meant)


def set_playing(cursor: Any, listener: str, heard: Heard, player: str, now: datetime) -> None:
    """Note what the listener hears now; it ends with the song."""
    more = heard.metadata.get("additional_info")
    client = more.get("submission_client") if isinstance(more, dict) else None
    length = timedelta(milliseconds=heard.milliseconds) if heard.milliseconds else UNKNOWN_LENGTH
    cursor.execute(
        "INSERT INTO listener_playing AS p "
        "(listener, title, artist, album, player, client, metadata, started_at, ends_at) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT (listener) DO UPDATE SET "
        "title = excluded.title, artist = excluded.artist, album = excluded.album, player = excluded.player, "
        "client = excluded.client, metadata = excluded.metadata, ends_at = excluded.ends_at, started_at = "
        "CASE WHEN (p.title, p.artist) = (excluded.title, excluded.artist) "
        "AND p.ends_at > excluded.started_at THEN p.started_at ELSE excluded.started_at END",
        (
            listener,
            heard.title,
            heard.artist,
            heard.album,
            heard.player or player,
            client if isinstance(client, str) else None,
            Json(_without_surrogates(heard.metadata)),
            now,
            now + min(length, timedelta(days=1)),
        ),
    )


def _without_surrogates(value: Any) -> Any:
    """The same with what no UTF-8 can hold replaced."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(name): _without_surrogates(one) for name, one in value.items()}
    return [_without_surrogates(one) for one in value] if isinstance(value, list) else value


def playing(cursor: Any, listener: str) -> dict[str, Any] | None:
    """What the listener hears now, as ListenBrainz has it, and the client that said so."""
    cursor.execute(
        "SELECT title, artist, album, metadata, client FROM listener_playing "
        "WHERE listener = %s AND ends_at > now()",
        (listener,),
    )
    row = cursor.fetchone()
    if row is None:
        return None
    title, artist, album, metadata, client = row
    named = {"track_name": title, "artist_name": artist, "release_name": album}
    return {"playing_now": True, "track_metadata": metadata | named, "client": client}


def stop_playing(cursor: Any, listener: str) -> None:
    """Forget what the listener hears now."""
    cursor.execute("DELETE FROM listener_playing WHERE listener = %s", (listener,))


def set_feedback(
    cursor: Any,
    listener: str,
    song: str,
    score: int,
    *,
    title: str | None,
    artist: str | None,
    mbid: str | None,
) -> None:
    """Love (1), hate (-1) or neither (0) for a song."""
    if score == 0:
        cursor.execute("DELETE FROM listener_feedback WHERE listener = %s AND song_id = %s", (listener, song))
        return
    cursor.execute(
        "INSERT INTO listener_feedback AS f (listener, song_id, title, artist, mbid, score) "
        "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (listener, song_id) DO UPDATE SET "
        "score = excluded.score, title = coalesce(excluded.title, f.title), "
        "artist = coalesce(excluded.artist, f.artist), updated_at = now()",
        (listener, song, title, artist, mbid, score),
    )


def feedback(
    cursor: Any, listener: str, *, score: int | None, count: int, offset: int
) -> tuple[int, list[dict[str, Any]]]:
    """How many songs the listener loves or hates, and a page of them, newest first."""
    cursor.execute(
        "SELECT song_id, title, artist, mbid, score, extract(epoch FROM updated_at)::bigint, "
        "count(*) OVER () FROM listener_feedback WHERE listener = %s AND (%s::int IS NULL OR score = %s) "
        "ORDER BY updated_at DESC, song_id LIMIT %s OFFSET %s",
        (listener, score, score, count, offset),
    )
    rows = cursor.fetchall()
    page = [
        {
            "user_id": listener,
            "recording_msid": None if mbid else song,
            "recording_mbid": mbid,
            "score": given,
            "created": created,
            "track_metadata": {"track_name": title, "artist_name": artist} if title else None,
        }
        for song, title, artist, mbid, given, created, _ in rows
    ]
    return (rows[0][6] if rows else 0), page


def latest_import(cursor: Any, listener: str, service: str) -> int:
    """The newest Unix time that a client has noted for the service; 0 where none has."""
    cursor.execute(
        "SELECT newest FROM listener_imports WHERE listener = %s AND service = %s", (listener, service)
    )
    row = cursor.fetchone()
    return row[0] if row else 0


def set_latest_import(cursor: Any, listener: str, service: str, newest: int) -> None:
    """Note it; it never goes back."""
    cursor.execute(
        "INSERT INTO listener_imports AS i (listener, service, newest) VALUES (%s, %s, %s) "
        "ON CONFLICT (listener, service) DO UPDATE SET "
        "newest = greatest(i.newest, excluded.newest), updated_at = now()",
        (listener, service, newest),
    )


def utc_now() -> datetime:
    """The present."""
    return datetime.now(UTC)
