"""Listeners and tokens: what is stored, what is refused, and who may see what."""

import contextlib
import json
import uuid

import psycopg2
import pytest
from click.testing import CliRunner

from music_streaming import cli, listener
from music_streaming.listener import Listener, ListenerError


@pytest.fixture
def owner(database):
    with contextlib.closing(database.connect("music_owner")) as connection:
        yield connection


@pytest.fixture
def musicctl(settings, tmp_path, monkeypatch):
    """Run musicctl on a board whose PostgreSQL is real."""
    postgres = settings.postgres
    (tmp_path / "music.toml").write_text(
        f'[postgres]\nport = {postgres.port}\ndatabase = "{postgres.database}"\n'
        f'secrets_dir = "{postgres.secrets_dir}"\n'
    )
    monkeypatch.setenv("MUSIC_CONFIG", str(tmp_path / "music.toml"))
    return lambda *arguments: CliRunner().invoke(cli.main, ["listener", *arguments])


def test_a_token_is_shown_once_and_stored_as_hashes(owner, database):
    assert listener.add(owner, Listener("ada", "35-44", "DE", "family"))
    token = listener.make_token(owner, "Ada", "phone")
    assert str(uuid.UUID(token)) == token
    (stored,) = listener.tokens(owner)
    assert (stored.listener, stored.player, stored.revoked_at) == ("ada", "phone", None)
    assert (stored.sha256, stored.md5) == listener.token_hashes(token) == listener.token_hashes(token.upper())
    everything = database.rows("SELECT * FROM listener_tokens", role="music_owner")
    assert token not in str(everything)
    assert token.replace("-", "") not in str(everything)


def test_attributes_are_changed_and_the_name_is_one_whatever_its_case(owner):
    assert listener.add(owner, Listener("Ada"))
    assert not listener.add(owner, Listener("ada", "18-24", "FR", "student"))
    assert listener.listeners(owner) == {"Ada": Listener("Ada", "18-24", "FR", "student")}


@pytest.mark.parametrize("name", ["", "  ", "a/b", "a\tb", "x" * 65, "\u200b"])
def test_a_name_that_no_path_can_hold_is_refused(owner, name):
    with pytest.raises(ListenerError, match="wanted 1 to 64 characters"):
        listener.add(owner, Listener(name))


def test_one_token_for_each_player_until_it_is_revoked(owner):
    listener.add(owner, Listener("ada"))
    first = listener.make_token(owner, "ada", "phone")
    listener.make_token(owner, "ada", "desktop")
    with pytest.raises(ListenerError, match="one for Phone of ada already"):
        listener.make_token(owner, "ada", "Phone")
    assert listener.revoke(owner, "ada", "PHONE") == 1
    assert listener.make_token(owner, "ada", "phone") != first
    assert listener.revoke(owner, "ada") == 2
    assert listener.revoke(owner, "ada") == 0


def test_nobody_of_that_name_is_a_sentence(owner):
    with pytest.raises(
        ListenerError, match=r"nobody of the name bob, wanted a listener \(there is none yet\)"
    ):
        listener.make_token(owner, "bob", "phone")
    listener.add(owner, Listener("ada"))
    with pytest.raises(ListenerError, match="wanted one of ada"):
        listener.revoke(owner, "bob")


def test_dashboards_see_no_hash(owner, database):
    listener.add(owner, Listener("ada"))
    listener.make_token(owner, "ada", "phone")
    assert database.rows("SELECT listener, player FROM listener_tokens") == [("ada", "phone")]
    for column in ("token_sha256", "token_md5", "*"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            database.rows(f"SELECT {column} FROM listener_tokens")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO listeners (name) VALUES ('mallory')",
        "UPDATE listener_tokens SET revoked_at = NULL",
        "DELETE FROM stream_events",
        "SELECT * FROM rejected_events",
    ],
)
def test_the_server_may_do_little(database, statement):
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        database.rows(statement, role="music_scrobble")


def test_the_command_adds_lists_and_revokes(musicctl):
    added = musicctl("add", "ada", "--player", "phone", "--age-group", "35-44", "--country", "de")
    assert added.exit_code == 0, added.output
    token = added.output.split()[-1]
    assert str(uuid.UUID(token)) == token
    assert musicctl("add", "ada", "--player", "phone").exit_code == 1
    more = json.loads(musicctl("add", "ada", "--player", "car", "--json").output)
    assert (more["listener"], more["new"], more["player"]) == ("ada", False, "car")
    assert json.loads(musicctl("add", "bob", "--no-token", "--json").output)["token"] is None
    shown = json.loads(musicctl("list", "--json").output)
    assert [(one["name"], one["age_group"], one["country"]) for one in shown] == [
        ("ada", "35-44", "DE"),
        ("bob", "unknown", "ZZ"),
    ]
    assert [own["name"] for own in shown[0]["players"]] == ["phone", "car"]
    assert token not in musicctl("list").output
    assert musicctl("revoke", "ada", "--player", "phone").output == "revoked: 1 token of ada\n"
    assert musicctl("revoke", "ada", "--player", "phone").exit_code == 1
    assert musicctl("add", "ada", "--country", "Germany").exit_code == 2
