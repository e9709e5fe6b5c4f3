"""The links of `musicctl doctor` through which a play goes: Kafka, topic, job, tables, Superset, senders."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import psycopg2

from music_streaming import broker, clock
from music_streaming.board.breakages import JOB, KAFKA, SENDERS, SUPERSET, TABLES, UNITS, Broken, Unseen
from music_streaming.board.machine import NEEDS_ROOT, Board, running
from music_streaming.board.trace import spark_workers
from music_streaming.error import MusicError
from music_streaming.metrics import ROLL_UPS
from music_streaming.metrics import TABLES as METRICS
from music_streaming.schema import SchemaError, pending
from music_streaming.setting_files import SettingsError
from music_streaming.settings import Role
from music_streaming.topic import TopicError, ensure_topics

SECONDS = 5
# The account with which the appliance asks Superset.
ACCOUNT = "appliance"
LOGIN_SECONDS = 30
RELATIONS = (
    "stream_events", "rejected_events", "ingest_offsets", "ingest_state", "ingest_batches", "ingest_totals",
    "ingest_gaps", "ingest_periods", "songs", *(table.name for table in (*METRICS, *ROLL_UPS)),
)  # fmt: skip
# The job looks every minute, and takes some thousands at once.
HELD = """
SELECT count(*), count(*) FILTER (WHERE due < now() - interval '15 minutes')
FROM rejected_events WHERE due <= now()
"""


def kafka(of: Board) -> str:
    """The broker's unit runs here, and a broker answers."""
    seen = _running_here(of, *UNITS[KAFKA])
    bootstrap = of.settings.kafka.bootstrap
    try:
        with broker.admin(bootstrap, timeout_seconds=SECONDS) as client:
            brokers = len(client.describe_cluster()["brokers"])
    except (broker.BrokerError, broker.KafkaError) as error:
        raise Broken("kafka-silent", str(error), unit="music-kafka") from error
    return f"{seen}{brokers} broker(s) at {bootstrap}"


def topic(of: Board) -> str:
    """The topic is there, as files/topics.yml and the settings want it."""
    name = of.settings.kafka.topic
    try:
        changes = ensure_topics(of.settings, dry_run=True)
    except TopicError as error:
        raise Broken("topic-differs", str(error), unit="music-kafka") from error
    except (broker.BrokerError, broker.KafkaError) as error:
        raise Broken("kafka-silent", str(error), unit="music-kafka") from error
    if any(change.startswith(f"{name}: created") for change in changes):
        raise Broken("topic-missing", f"no topic {name}", unit="music-kafka")
    if changes:
        raise Broken("topic-differs", "; ".join(changes), unit="music-kafka")
    return name


def job(of: Board) -> str:
    """Spark's units run, and the master has a worker."""
    seen = _running_here(of, *UNITS[JOB])
    try:
        return f"{seen}{spark_workers(of.settings)}"
    except (httpx.HTTPError, MusicError, OSError, ValueError) as error:
        found = f"{type(error).__name__} {error}"
        raise Broken("no-worker", found, unit="music-spark-worker") from error


def tables(of: Board) -> str:
    """PostgreSQL takes each role's password, and has the tables of this version; no reject is held."""
    seen = _running_here(of, *UNITS[TABLES])
    postgres = of.settings.postgres
    try:
        socket.create_connection((postgres.host, postgres.port), timeout=SECONDS).close()
    except OSError as error:
        raise Broken(
            "postgres-silent", f"{postgres.host}:{postgres.port}: {error}", unit="music-postgres"
        ) from error
    for role in Role:
        if not of.may_read(role):
            raise Unseen(f"{seen}takes connections; {NEEDS_ROOT}")
        _login(of, role)
    _schema(of)
    with postgres.connection(Role.READER, application="musicctl-doctor") as connection:
        held, long = _row(connection, HELD)
    # A clock that may be wrong judges nothing again.
    if long and clock.synchronised(trusted=of.settings.stream.clock_trusted):
        raise Broken(
            "rejects-held", f"{held:,}, of which {long:,} for more than 15 minutes", unit="music-metrics"
        )
    return f"{seen}{len(Role)} roles, {len(RELATIONS)} tables"


def _login(of: Board, role: Role) -> None:
    postgres = of.settings.postgres
    path = postgres.secrets_dir / f"postgres_{role}"
    try:
        postgres.connect(role, application="musicctl-doctor").close()
    except SettingsError as error:
        # On several boards each has the secrets that it needs.
        if role is Role.READER or path.exists():
            raise Broken("secret-missing", str(error), unit="music-postgres") from error
    except psycopg2.OperationalError as error:
        said = " ".join(str(error).split())
        kind = "postgres-refuses" if "authentication" in said or "role" in said else "postgres-silent"
        raise Broken(kind, said, unit="music-postgres", secrets=path) from error


def _schema(of: Board) -> None:
    # The list of migrations is its owner's alone.
    try:
        with of.settings.postgres.connection(Role.OWNER, application="musicctl-doctor") as connection:
            missing = pending(connection, of.settings.paths.files / "schema")
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT name FROM unnest(%s) AS name WHERE to_regclass('public.' || name) IS NULL",
                    (list(RELATIONS),),
                )
                gone = [name for (name,) in cursor.fetchall()]
    except SchemaError as error:
        raise Broken("schema", str(error), unit="music-postgres") from error
    except SettingsError:  # of another board
        return
    if missing:
        raise Broken("schema", f"{missing[0].name} not applied", unit="music-postgres")
    if gone:
        raise Broken("table-missing", f"no {', '.join(gone)}", unit="music-postgres")


def _row(connection: Any, sql: str) -> tuple[Any, ...]:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return tuple(cursor.fetchone())


def superset(of: Board) -> str:
    """Superset answers, and lets the appliance's account in, which asks its own database."""
    seen = _running_here(of, *UNITS[SUPERSET])
    wanted = of.settings.superset
    headers = {"X-Forwarded-Proto": "https"} if wanted.https else {}
    try:
        with httpx.Client(base_url=wanted.url, headers=headers, timeout=SECONDS) as http:
            http.get("/health").raise_for_status()
            secret = of.settings.postgres.secrets_dir / "superset_appliance"
            try:
                password = of.settings.secret("superset_appliance").get_secret_value()
            except SettingsError:
                raise Unseen(f"{seen}/health answers; {NEEDS_ROOT} ({secret})") from None
            login = {"username": ACCOUNT, "password": password, "provider": "db"}
            answer = http.post("/api/v1/security/login", json=login, timeout=LOGIN_SECONDS)
    except httpx.HTTPError as error:
        found = f"{type(error).__name__} {error} at {wanted.url}"
        raise Broken("superset-silent", found, unit="music-superset") from error
    if answer.is_error or "access_token" not in answer.text:
        raise Broken("superset-login", f"HTTP {answer.status_code} for {ACCOUNT}", unit="music-superset")
    return f"{seen}login at {wanted.url}"


def senders(of: Board) -> str:
    """The demo audience and the scrobble server run, where the owner wants them."""
    return running(of, *UNITS[SENDERS])


def _running_here(of: Board, *names: str) -> str:
    """As `running`, with a comma behind it; "" where the part is on another board, which is asked as well."""
    try:
        return f"{running(of, *names)}, "
    except Unseen:
        return ""
