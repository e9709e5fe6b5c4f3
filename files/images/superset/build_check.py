"""The configuration with which the image proves itself while it is built: a throwaway SQLite file and
secrets.
"""

# ruff: noqa: N802, PLC0415, S105, S108

from pathlib import Path
from typing import Any

MUSIC_SECRETS = Path("/tmp/superset")
MUSIC_SECRETS.mkdir(exist_ok=True)
for name in ("superset_admin", "superset_appliance"):
    (MUSIC_SECRETS / name).write_text("only while the image is built")

MUSIC_ADMIN_USER = "admin"
MUSIC_HOME_DASHBOARD = "music-live"
FAB_INDEX_VIEW = "music_superset.HomeView"
SECRET_KEY = "only while the image is built"
SQLALCHEMY_DATABASE_URI = "sqlite:////tmp/build_check.db"
RATELIMIT_ENABLED = True
RATELIMIT_STORAGE_URI = "memory://"


def FLASK_APP_MUTATOR(app: Any) -> None:
    from music_superset import customise

    customise(app)
