"""musicctl from outside: what it prints, its exit codes, and that it keeps secrets and time."""

import hashlib
import json
import os
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from music_streaming import cli
from music_streaming.demo.commands.service import environment
from music_streaming.demo.producer import pace_of
from music_streaming.settings import Settings


@pytest.fixture
def board(database, secrets, files, tmp_path, monkeypatch):
    """The environment of a board whose PostgreSQL is real and whose Kafka is not there."""
    settings = secrets(database)
    (tmp_path / "music.toml").write_text(
        f'[kafka]\nbootstrap = "127.0.0.1:1"\n[postgres]\nport = {settings.postgres.port}\n'
        f'database = "{database.name}"\nsecrets_dir = "{tmp_path}"\n'
        f'[paths]\nfiles = "{files}"\ndata = "{tmp_path}"\n'
    )
    monkeypatch.setenv("MUSIC_CONFIG", str(tmp_path / "music.toml"))
    return tmp_path


def musicctl(*arguments: str):
    return CliRunner().invoke(cli.main, arguments)


def process(*arguments: str, files) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "music_streaming.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(files.parent / "app")},
    )


def test_help_is_quick_and_knows_every_command(files):
    begun = time.monotonic()
    done = process("--help", files=files)
    assert time.monotonic() - begun < 2
    assert done.returncode == 0
    for name in (
        "status",
        "validate",
        "trace",
        "sql",
        "topics",
        "schema",
        "sbom",
        "listener",
        "demo",
        "dashboards",
    ):
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize(
    ("group", "name"),
    [(group, name) for group in (cli.main, cli.main.get_command(None, "demo")) for name in group.lazy],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_the_list_says_of_a_command_what_its_own_help_begins_with(group, name):
    assert group.get_command(None, name).help.splitlines()[0] == group.lazy[name].help


def test_help_loads_nothing_heavy(files):
    heavy = ("kafka", "numpy", "faker", "psycopg2", "pydantic", "cyclonedx")
    script = (
        "import sys, music_streaming.cli as cli; cli.main(['--help'], standalone_mode=False); "
        f"print([n for n in {heavy} if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(files.parent / "app")},
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_sql_prints_rows_as_csv_through_the_read_only_role(board, files):
    done = process("sql", "--csv", "-c", "SELECT current_user, 'a,b'", files=files)
    assert (done.stdout, done.returncode) == ('superset_reader,"a,b"\n', 0), done.stderr
    for statement in (
        "DELETE FROM ingest_totals",
        "SET transaction_read_only = off; DELETE FROM ingest_totals",
    ):
        done = process("sql", "-c", statement, files=files)
        assert done.returncode == 1
        assert "permission denied" in done.stderr or "read-only" in done.stderr


def test_sql_hands_options_to_psql_and_the_password_to_nobody(board, files):
    done = process("sql", "--", "-At", "-c", "SELECT 1; SELECT 2", files=files)
    assert done.stdout == "1\n2\n", done.stderr
    seen = process("sql", "--csv", "-c", "\\! tr '\\0' ' ' < /proc/$PPID/cmdline", files=files)
    assert "psql" in seen.stdout
    assert "PGPASSWORD" not in seen.stdout
    assert "superset_reader" not in seen.stdout


def test_validate_tells_by_table_json_and_exit_code(board, database):
    done = musicctl("validate", "--samples", "2", "--interval", "0")
    assert done.exit_code == 0
    assert "2 of 2 samples ok" in done.output
    done = musicctl("validate", "--json")
    content = json.loads(done.output)
    assert content["ok"] is True
    assert content["checks"][0] == {
        "name": "demo: accepted = rows ever written = streams of each metric table",
        "ok": True,
        "found": "0 in each",
        "wanted": "0 accepted",
        "note": False,
    }
    with database.connect("music_owner") as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE ingest_totals SET accepted = 7 WHERE source = 'import'")
    connection.close()
    done = musicctl("validate")
    assert done.exit_code == 1
    assert "not ok" in done.output
    assert "7 accepted" in done.output


def test_status_is_1_when_degraded(board):
    done = musicctl("status", "--json")
    content = json.loads(done.output)
    assert (done.exit_code, content["healthy"]) == (1, False)
    assert any("no broker at 127.0.0.1:1" in problem for problem in content["problems"])
    done = musicctl("status")
    assert done.exit_code == 1
    assert "degraded" in done.output


def test_trace_shows_what_held_and_names_the_broken_link(board, broker, topic, files, monkeypatch):
    """Kafka and PostgreSQL are there, Spark is not."""
    monkeypatch.setenv("MUSIC_KAFKA__BOOTSTRAP", broker.bootstrap)
    monkeypatch.setenv("MUSIC_KAFKA__TOPIC", topic)
    monkeypatch.setenv("MUSIC_SPARK__MASTER_WEB_PORT", "1")
    process("topics", files=files)
    done = process("trace", "--json", files=files)
    content = json.loads(done.stdout)
    assert done.returncode == 1
    assert [step["link"] for step in content["steps"]] == ["producer -> Kafka", "PostgreSQL, read-only role"]
    assert (content["ok"], content["broken"], content["unit"]) == (
        False,
        "Spark cluster",
        "music-spark-master",
    )
    done = process("trace", files=files)
    assert done.returncode == 1
    assert "producer -> Kafka" in done.stdout
    assert "Spark cluster: found" in done.stderr


def test_schema_says_what_it_changed(board, empty_database, monkeypatch):
    monkeypatch.setenv("MUSIC_POSTGRES__DATABASE", empty_database.name)
    planned = json.loads(musicctl("schema", "--json", "--check").output)
    assert planned["changed"] is True
    assert planned["changes"][0] == "001_events.sql"
    assert json.loads(musicctl("schema", "--json").output) == planned
    assert json.loads(musicctl("schema", "--json").output) == {"changed": False, "changes": []}
    assert musicctl("schema").output == "unchanged\n"


def test_topics_say_what_they_changed(board, broker, topic, monkeypatch):
    monkeypatch.setenv("MUSIC_KAFKA__BOOTSTRAP", broker.bootstrap)
    monkeypatch.setenv("MUSIC_KAFKA__TOPIC", topic)
    planned = musicctl("topics", "--check")
    assert planned.output.startswith(f"changed: {topic}: created with 4 partitions")
    assert json.loads(musicctl("topics", "--json").output)["changed"] is True
    assert json.loads(musicctl("topics", "--json").output) == {"changed": False, "changes": []}


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MUSIC_POSTGRES__PORT", "1", "PostgreSQL does not answer: found"),
        ("MUSIC_POSTGRES__PORT", "many", "Setting [postgres] port in environment variable"),
        ("MUSIC_POSTGRES__SECRETS_DIR", "/nowhere", "found no file /nowhere/postgres_superset_reader"),
    ],
)
def test_what_the_owner_can_mend_is_a_sentence(board, monkeypatch, variable, value, says):
    monkeypatch.setenv(variable, value)
    done = musicctl("validate")
    assert done.exit_code == 1
    assert says in done.output
    assert "Traceback" not in done.output


def test_demo_rate_wants_a_rate_it_can_hold():
    for arguments in (["5001"], ["0"], [], ["5", "--reset"], ["model", "--reset"], ["fast"]):
        done = musicctl("demo", "rate", *arguments)
        assert done.exit_code == 2
        assert "model" in done.output, done.output


@pytest.mark.parametrize(("pace", "says"), [("model", "as people play"), (12.5, "12.5 plays/s")])
def test_what_demo_rate_writes_is_what_the_producer_reads(pace, says, tmp_path, monkeypatch):
    settings = tmp_path / "music.toml"
    settings.write_text('[producer]\npace = "rate"\nrate = 7\n')
    for line in environment(pace):
        monkeypatch.setenv(*line.split("="))
    assert pace_of(Settings.load(settings).producer) == says


EXPORT = ("demo", "export", "--from", "2026-11-20", "--until", "2026-11-21", "--listeners", "40")
EXPORT_DIGEST = "e2cf808b94e706e53a430ac6d3806966e46b01b3fe0fa7fb3609472c2cae5a2c"


def test_a_data_set_needs_no_board_and_is_always_the_same(monkeypatch, tmp_path):
    """If the model changes on purpose, raise generate.VERSION and write the new digest here."""
    monkeypatch.setenv("MUSIC_CONFIG", str(tmp_path / "nowhere.toml"))
    printed = musicctl(*EXPORT, "--to", "jsonl")
    assert (printed.exit_code, printed.stderr) == (0, "")
    assert hashlib.sha256(printed.stdout_bytes).hexdigest() == EXPORT_DIGEST
    plays = [json.loads(line) for line in printed.stdout.splitlines()]
    assert len(plays) > 100
    assert {play["event_time"][:10] for play in plays} == {"2026-11-20"}
    assert musicctl(*EXPORT, str(tmp_path / "plays.jsonl")).output == ""
    assert (tmp_path / "plays.jsonl").read_bytes() == printed.stdout_bytes
    assert musicctl(*EXPORT, "--seed", "43").stdout_bytes != printed.stdout_bytes
    for until in ("2026-11-20", "2026-11-20 10:30:00"):
        assert musicctl("demo", "export", "--from", "2026-11-20", "--until", until).exit_code == 2


def test_without_expected_metrics_there_is_nothing_to_compare_with(board):
    done = musicctl("validate", "--expected")
    assert done.exit_code == 1
    assert f"found no file {board}/producer/expected.jsonl.gz" in done.output
    assert "Remedy: sudo musicctl demo backfill" in done.output
    assert "Remedy: correct the path" in musicctl("validate", "--expected", "nowhere", "--json").output


def test_backfill_plans_and_may_be_left_out(board, monkeypatch):
    planned = json.loads(musicctl("demo", "backfill", "--check", "--json").output)
    assert planned["changed"] is True
    assert planned["changes"][0].startswith("history of 2,000 listeners from ")
    assert not (board / "producer").exists()
    done = musicctl("demo", "backfill")
    assert done.exit_code == 1
    assert "no broker at 127.0.0.1:1" in done.output
    monkeypatch.setenv("MUSIC_PRODUCER__HISTORY_DAYS", "0")
    assert musicctl("demo", "backfill").output == "unchanged\n"


def test_remove_asks_first(board):
    done = CliRunner().invoke(cli.main, ["demo", "remove"], input="n\n")
    assert done.exit_code == 1
    assert "Remove every play of the demo" in done.output
    assert "stopped" not in done.output


def test_dashboards_are_linted(files, tmp_path):
    assert musicctl("dashboards", "lint", str(files / "dashboards")).exit_code == 0
