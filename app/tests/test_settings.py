"""Settings: what wins, what is refused and how it says so, and secrets that stay secret."""

import os

import pytest
from psycopg2.extensions import parse_dsn
from pydantic import ValidationError

from music_streaming.settings import KafkaSettings, PostgresSettings, Settings, SettingsError

ODD_PASSWORD = "p@ss:w/rd%'\" \\x"  # noqa: S105  the point of it


@pytest.fixture
def write(tmp_path):
    def written(text):
        path = tmp_path / "music.toml"
        path.write_text(text)
        return path

    return written


@pytest.fixture
def with_secret(tmp_path):
    def settings(content):
        (tmp_path / "postgres_music_writer").write_text(content)
        return Settings(postgres=PostgresSettings(secrets_dir=tmp_path))

    return settings


def test_the_file_then_the_environment_win(write, monkeypatch):
    path = write('[kafka]\nbootstrap = "10.0.0.1:9092"\ntopic = "plays"\n[producer]\nrate = 5\n')
    monkeypatch.setenv("MUSIC_CONFIG", str(path))
    monkeypatch.setenv("MUSIC_KAFKA__TOPIC", "other")
    settings = Settings.load()
    assert settings.kafka == KafkaSettings(bootstrap="10.0.0.1:9092", topic="other")
    assert settings.producer.rate == 5.0
    assert settings.spark == Settings().spark
    assert type(settings) is Settings


def test_settings_are_frozen(write):
    settings = Settings.load(write(""))
    with pytest.raises(ValidationError):
        settings.kafka = KafkaSettings()
    with pytest.raises(ValidationError):
        settings.kafka.topic = "other"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[kafka]\npartions = 3", ["[kafka] partions", "unknown name", "rename it to partitions"]),
        ("[kafkaa]\nx = 1", ["Setting kafkaa", "unknown name", "rename it to kafka"]),
        ('[kafka]\npartitions = "many"', ["[kafka] partitions", "'many'", "a valid integer"]),
        ("[kafka]\npartitions = 0", ["[kafka] partitions", "found 0", "greater than 0"]),
        ("[producer]\nrate = 5001", ["[producer] rate", "5001", "less than or equal to 5000"]),
        ('[producer]\nlocales = ["en_US", "english"]', ["[producer] locales", "'english'"]),
        ('display_time_zone = "Mars/Olympus"', ["display_time_zone", "Mars/Olympus", "Europe/Berlin"]),
        ('[spark]\nexecutor_memory = "lots"', ["[spark] executor_memory", "'lots'"]),
        ("[kafka\n", ["wanted TOML"]),
    ],
)
def test_what_is_wrong_is_named_with_its_file(write, text, says):
    path = write(text)
    with pytest.raises(SettingsError) as caught:
        Settings.load(path)
    for part in [*says, str(path), "found", "wanted", "Remedy:"]:
        assert part in str(caught.value)


def test_every_mistake_is_named_at_once(write):
    with pytest.raises(SettingsError) as caught:
        Settings.load(write("[kafka]\npartitions = 0\n[postgres]\nport = 70000"))
    assert len(str(caught.value).splitlines()) == 2


def test_a_wrong_variable_is_named_instead_of_the_file(write, monkeypatch):
    monkeypatch.setenv("MUSIC_SPARK__EXECUTOR_CORES", "0")
    with pytest.raises(SettingsError, match="correct or unset MUSIC_SPARK__EXECUTOR_CORES"):
        Settings.load(write(""))


def test_a_variable_of_no_section_is_refused(write, monkeypatch):
    monkeypatch.setenv("MUSIC_KAFKAA__TOPIC", "x")
    with pytest.raises(SettingsError, match="MUSIC_KAFKAA__TOPIC: found section KAFKAA, wanted one of KAFKA"):
        Settings.load(write(""))


def test_a_file_that_was_asked_for_must_exist(tmp_path):
    with pytest.raises(SettingsError, match="found no file"):
        Settings.load(tmp_path / "none.toml")


def test_changes_are_checked():
    assert Settings().with_changes(producer={"rate": 7}).producer.rate == 7.0
    with pytest.raises(ValidationError):
        Settings().with_changes(producer={"rate": -1})


def test_the_password_reaches_libpq_and_nothing_else(with_secret):
    settings = with_secret(ODD_PASSWORD + "\n")
    dsn = settings.postgres.dsn("music_writer", application="test")
    assert parse_dsn(dsn.get_secret_value())["password"] == ODD_PASSWORD
    for shown in (repr(dsn), str(dsn), repr(settings), repr(settings.postgres.password("music_writer"))):
        assert "p@ss" not in shown


def test_a_missing_or_empty_secret_says_what_to_do(with_secret):
    settings = with_secret("\n")
    with pytest.raises(SettingsError, match="found an empty file"):
        settings.postgres.dsn("music_writer")
    with pytest.raises(SettingsError, match=r"found no file .*superset_admin.*site\.yml"):
        settings.secret("superset_admin")


def test_a_closed_secret_says_sudo(with_secret, tmp_path):
    settings = with_secret("secret")
    (tmp_path / "postgres_music_writer").chmod(0)
    # Root may read everything, so as somebody else for a moment.
    me = os.geteuid()
    try:
        if me == 0:
            os.seteuid(65534)
        with pytest.raises(SettingsError, match=r"closed to this user.*sudo musicctl"):
            settings.postgres.password("music_writer")
    finally:
        os.seteuid(me)
