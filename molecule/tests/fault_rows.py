"""How many plays of the accounts in FOLDER have a row. Runs on the board, in the app's own Python.

With a second argument, a Unix time, only those that were acknowledged later, and no row is asked for. Prints one JSON object: ids, those of the accounts, and rows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from account_file import acknowledged
from music_streaming.settings import Role, Settings

since = float(sys.argv[2]) * 1000 if sys.argv[2:] else 0
account, _ = acknowledged(Path(sys.argv[1]), {})
ids = [event_id for event_id, ms in account if ms > since]
if since:
    # The database may be away.
    print(json.dumps({"ids": ids}))
    sys.exit()
with Settings.load().postgres.connection(Role.READER) as connection, connection.cursor() as cursor:
    cursor.execute("SELECT count(*) FROM stream_events WHERE event_id = ANY(%s::uuid[])", (ids,))
    (rows,) = cursor.fetchone()
print(json.dumps({"ids": ids, "rows": rows}))
