"""Settings at values that are not their defaults: each is where it has its effect."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from conftest import PROJECT, ask_dataset

SETTINGS = ("-e", "@molecule/edited/settings.yml")
PROXY = ("-e", "@molecule/edited/proxy.yml")
ASK = "sudo psql -h /run/music-postgres -U postgres -At -c"
CHART = {"expressionType": "SQL", "sqlExpression": "max(current_setting('statement_timeout'))", "label": "n"}
# What to ask the board: what its answer has to hold.
EFFECTS = {
    "apt-config dump": ['DPkg::Lock::Timeout "240"', 'APT::Keep-Downloaded-Packages "false"'],
    "cat /etc/systemd/journald.conf.d/music.conf": ["SystemMaxUse=150M"],
    "openssl storeutl -noout -text -certs /etc/ssl/certs/ca-certificates.crt | grep Subject:": ["Story edited"],
    "sudo ufw status": ["9100/tcp"],
    "cat /etc/systemd/system/music-kafka.service": ["-Xmx272m"],
    "cat /etc/music/kafka/server.properties": [
        "log.cleaner.threads=2", "log.flush.interval.ms=900", "message.max.bytes=2200000",
    ],
    "cat /etc/systemd/system/music-spark-master.service": ["SPARK_DAEMON_MEMORY=144m"],
    "cat /etc/systemd/system/music-spark-worker.service": ["size=272m", '"800m"', '"--cores" "2"'],
    "cat /etc/music/music.toml": [
        'display_time_zone = "Europe/Berlin"', "retention_bytes = 540000000", 'driver_memory = "240m"',
        'executor_memory = "240m"', "trigger_seconds = 0.9", "max_offsets_per_trigger = 40000",
        "future_tolerance_seconds = 240", "watermark_delay_seconds = 500", "demo_retention_days = 15", 'pace = "rate"',
        "fold_hours_after_days = 13", "fold_days_after_days = 80",
    ],
    f"{ASK} 'show max_connections' -c 'show shared_buffers' -c 'show log_min_duration_statement'": [
        "44", "144MB", "8s",
    ],
    "sudo musicctl sql --csv -c 'SHOW statement_timeout'": ["20s"],
    "sudo musicctl sql --csv -c 'SHOW temp_file_limit'": ["1GB"],
    "cat /etc/systemd/system/music-superset.service": ["--threads=7", "wait-ready 500"],
    "cat /etc/music/superset_config.py": [
        "SQLLAB_TIMEOUT = 20", '"pool_size": 3', "CACHE_DEFAULT_TIMEOUT = 45", '"TAGGING_SYSTEM": True',
        'LOG_LEVEL = "INFO"', '"30 per minute"',
    ],
    "curl -s -o /dev/null -w '%{redirect_url}' http://127.0.0.1:8088/superset/welcome/": ["/login"],
}  # fmt: skip


@pytest.mark.parametrize("question", EFFECTS, ids=lambda question: question.partition(" -c")[0])
def test_a_changed_setting_arrives(board, question):
    answer = board.ssh(question).stdout
    assert [words for words in EFFECTS[question] if words not in answer] == [], answer


def test_the_readers_timeout_reaches_charts(board):
    with board.superset_admin() as admin:
        answer = ask_dataset(admin, "user_engagement_metrics", {"columns": [], "metrics": [CHART]})
    assert answer.json()["result"][0]["data"] == [{"n": "20s"}], answer.text


def test_a_time_range_is_in_the_owners_time_zone(board):
    """Superset's "now" and "today", and what PostgreSQL takes them for."""
    zone = ZoneInfo("Europe/Berlin")
    with board.superset_admin() as admin:
        since = "DATETRUNC(DATETIME('today'), day) : now"
        query = {
            "columns": [],
            "metrics": [CHART | {"sqlExpression": "max(current_setting('TimeZone'))"}],
            "filters": [{"col": "window_start", "op": "TEMPORAL_RANGE", "val": since}],
        }
        asked = ask_dataset(admin, "user_engagement_metrics", query).raise_for_status()
        (answer,) = asked.json()["result"]
    assert answer["data"] == [{"n": "Europe/Berlin"}], answer
    # Both are told as if the clock on the wall were UTC.
    first, last = (datetime.fromtimestamp(answer[key] / 1000, UTC) for key in ("from_dttm", "to_dttm"))
    now = datetime.now(zone).replace(tzinfo=UTC)
    assert abs((last - now).total_seconds()) < 60, answer
    assert first == last.replace(hour=0, minute=0, second=0, microsecond=0), answer
    assert f"TO_TIMESTAMP('{first:%F} 00:00:00.000000'" in answer["query"], answer["query"]


def test_behind_a_proxy_that_speaks_https(board, play):
    """Bound to loopback, at other ports, with https wanted: dashboards are imported and checked all the same."""
    there = ("site.yml", *SETTINGS, *PROXY, "--tags", "firewall,spark,superset,pipeline")
    try:
        done = play(*there)
        assert done.returncode == 0, done.stdout[-3000:]
        again = play(*there)
        assert again.returncode == 0, again.stdout[-3000:]
        assert "changed=0" in again.stdout, again.stdout[-3000:]
        asked = "curl -s -o /dev/null -w '%{http_code} %{redirect_url}' http://127.0.0.1:18088/login/"
        assert board.ssh(asked).stdout == "302 https://127.0.0.1:18088/login/"
        assert board.ssh(f"{asked} -H 'X-Forwarded-Proto: https'").stdout.startswith("200")
        assert board.ssh("sudo musicctl dashboards import").stdout.startswith("unchanged")
        board.ssh("sudo musicctl trace")
        board.ssh("sudo musicctl status")
        listening = board.ssh("ss --listening --tcp --numeric").stdout
        assert "127.0.0.1:18088" in listening
        # Switched off by proxy.yml.
        assert ":8090" not in listening
        assert "8090" not in board.ssh("sudo ufw status").stdout
    finally:
        back = play("site.yml", *SETTINGS)
        assert back.returncode == 0, back.stdout[-3000:]
        assert (PROJECT / "molecule/edited/settings.yml").exists()
