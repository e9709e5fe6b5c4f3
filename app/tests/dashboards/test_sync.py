"""The bundle into Superset. What Superset itself makes of it is a story on the board."""

from pathlib import Path

import pytest

from music_streaming.dashboards.superset import SupersetError
from music_streaming.dashboards.sync import import_bundle
from music_streaming.settings import PathSettings, PostgresSettings, Settings, SupersetSettings
from music_streaming.testing import FILES, free_port

FOLDER = FILES / "dashboards"


def test_import_says_where_superset_should_have_answered(tmp_path: Path) -> None:
    (tmp_path / "superset_appliance").write_text("secret\n")
    url = f"http://127.0.0.1:{free_port()}"
    settings = Settings(
        postgres=PostgresSettings(secrets_dir=tmp_path),
        superset=SupersetSettings(url=url),
        paths=PathSettings(data=tmp_path),
    )
    with pytest.raises(SupersetError, match=f"{url} does not answer"):
        import_bundle(settings, FOLDER)
