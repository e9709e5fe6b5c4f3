"""The way back out: the plays of a listener as listens of ListenBrainz, a line each.

What ListenBrainz has no field for goes along under additional_info, so that an import of the file gives the
same plays: https://listenbrainz.readthedocs.io/en/latest/users/json.html
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from music_streaming.country import UNKNOWN_CODE
from music_streaming.event import UNKNOWN, format_time
from music_streaming.imports.scrobbles import EXPORT_KEY, OWN_FLAGS, OWN_TEXTS

if TYPE_CHECKING:
    from psycopg2.extensions import connection

CLIENT = "music-streaming"
OWN = ("listened_ms", *OWN_TEXTS, *OWN_FLAGS)
COLUMNS = ("event_time", "title", "artist", "album", "duration_ms", *OWN)
AT_ONCE = 2_000


def export(database: connection, listener: str, file: BinaryIO) -> int:
    """Write every real play of the listener to the file, the oldest first; returns how many there are."""
    count = 0
    with database, database.cursor("export") as cursor:
        cursor.itersize = AT_ONCE
        cursor.execute(
            f"SELECT {', '.join(COLUMNS)} FROM stream_events "  # noqa: S608  names of this module
            "WHERE source IN ('scrobble', 'import') AND user_id = %s ORDER BY event_time, event_id",
            (listener,),
        )
        for row in cursor:
            line = json.dumps(listen(dict(zip(COLUMNS, row, strict=True))), ensure_ascii=False)
            file.write(line.encode() + b"\n")
            count += 1
    return count


def listen(play: dict[str, Any]) -> dict[str, Any]:
    """A stored play as a listen of ListenBrainz."""
    started: datetime = play["event_time"]
    own = {name: play[name] for name in OWN if play[name] not in (None, UNKNOWN, UNKNOWN_CODE)}
    info: dict[str, Any] = {"submission_client": CLIENT}
    if "player" in own:
        info["media_player"] = own["player"]
    if play["duration_ms"]:
        info["duration_ms"] = play["duration_ms"]
    info[EXPORT_KEY] = {"event_time": format_time(started), **own}
    track = {"artist_name": play["artist"], "track_name": play["title"], "additional_info": info}
    if play["album"]:
        track["release_name"] = play["album"]
    return {"listened_at": int(started.timestamp()), "track_metadata": track}
