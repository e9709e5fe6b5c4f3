"""A player that sends numbered plays to the scrobble server. Runs on the board, in the app's own Python, under systemd.

Arguments: plays a second, folder of the account. The token is in the environment (TOKEN). As players do, it keeps a play until the
server has said that it has it, and sends it again meanwhile. Each that was taken is noted in the file `scrobbled` (account_file.py).
A play that was sent and not acknowledged when the program ended may be stored or not, and is in no account.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

import httpx

from account_file import ENTRY
from music_streaming import event
from music_streaming.settings import Settings

LISTENER, ARTIST = "faults", "Scrobbled"
# Long ago: no clock that a fault sets wrong makes a difference to it.
FIRST_SECOND = 1_600_000_000
PAUSE_SECONDS = 1.0

rate, folder = float(sys.argv[1]), Path(sys.argv[2])
life = secrets.token_hex(6)
account = os.open(folder / "scrobbled", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
client = httpx.Client(
    base_url=f"http://127.0.0.1:{Settings.load().scrobble.port}",
    headers={"Authorization": f"Token {os.environ['TOKEN']}"},
    timeout=30,
)


def taken(title: str, second: int) -> bool:
    """Send the play once; whether the server has said that it has it."""
    listen = {"listened_at": second, "track_metadata": {"artist_name": ARTIST, "track_name": title}}
    try:
        answer = client.post("/1/submit-listens", json={"listen_type": "single", "payload": [listen]})
    except httpx.TransportError:
        return False
    if answer.status_code in (400, 401, 413):
        sys.exit(f"refused for ever: {answer.status_code} {answer.text}")
    return answer.is_success


number = 0
while True:
    begun = time.monotonic()
    number += 1
    title, second = f"Song {number} of {life}", FIRST_SECOND + 300 * number
    while not taken(title, second):
        time.sleep(PAUSE_SECONDS)
    play = uuid.UUID(event.play_id(LISTENER, datetime.fromtimestamp(second, UTC), ARTIST, title))
    os.write(account, ENTRY.pack(play.int >> 64, play.int & (1 << 64) - 1, int(time.time() * 1000)))
    time.sleep(max(0.0, begun + 1 / rate - time.monotonic()))
