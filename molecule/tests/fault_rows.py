"""How many plays of load.py's account in FOLDER have a row. Runs on the board, in the app's own Python.

Prints one JSON object: ids, those of the account, and rows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from account_file import entries
from music_streaming.settings import Role, Settings

ids = [event_id for event_id, _ in entries((Path(sys.argv[1]) / "acknowledged").read_bytes())]
with Settings.load().postgres.connection(Role.READER) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT count(*) FROM stream_events WHERE event_id = ANY(%s::uuid[])", (ids,))
    (rows,) = cursor.fetchone()
print(json.dumps({"ids": ids, "rows": rows}))
