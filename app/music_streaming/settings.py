"""One typed, frozen object with every setting of the appliance, read once.

Source: the TOML file ``/etc/music/music.toml`` (another path by the environment variable MUSIC_CONFIG), then
the variables ``MUSIC_<SECTION>__<KEY>``, which win. On the board Ansible writes the file. Passwords are never
settings: they are files in ``[postgres] secrets_dir``, read when a connection is made.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import zoneinfo
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from music_streaming.setting_files import DEFAULT_PATH, SettingsError, read_secret, read_toml

if TYPE_CHECKING:
    from psycopg2.extensions import connection

ENV_PREFIX = "MUSIC_"

Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Port = Annotated[int, Field(gt=0, lt=65536)]
JvmMemory = Annotated[str, Field(pattern=r"^[1-9]\d*[mg]$")]
Locale = Annotated[str, Field(pattern=r"^[a-z]{2,3}_[A-Z]{2}$")]
Text = Annotated[str, Field(min_length=1)]
WebAddress = Annotated[str, Field(pattern=r"^https?://[^/]+(/.*)?$")]
SparkMaster = Annotated[str, Field(pattern=r"^(spark://.+|local\[(\d+|\*)\])$")]
TopicName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class Role(StrEnum):
    """Who a connection to PostgreSQL is, by the name of the role there."""

    OWNER = "music_owner"
    WRITER = "music_writer"
    READER = "superset_reader"
    SCROBBLE = "music_scrobble"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class KafkaSettings(_Section):
    """The broker (host:port, several by commas) and the topic; sizes in bytes, times in ms.

    A key that is None is decided by files/topics.yml.
    """

    bootstrap: Text = "127.0.0.1:9092"
    topic: TopicName = "stream_events"
    partitions: Count | None = None
    retention_ms: Count | None = None
    retention_bytes: Count | None = None
    segment_bytes: Count | None = None
    max_message_bytes: Count | None = None


class PostgresSettings(_Section):
    """The database; the password of role R is the content of the file ``secrets_dir/postgres_R``.

    superset_database: where Superset keeps its own tables. admin_host: folder of the socket over which root
    is the superuser, without a password.
    """

    host: Text = "127.0.0.1"
    port: Port = 5432
    database: Text = "music_streaming"
    secrets_dir: Path = Path("/etc/music/secrets")
    connect_seconds: Count = 10
    lost_seconds: Count = 30
    superset_database: Text = "superset"
    admin_host: Text = "/run/music-postgres"

    def password(self, role: Role) -> SecretStr:
        """The password of `role`; raises SettingsError when its file is missing or closed to this user."""
        return read_secret(self.secrets_dir, f"postgres_{role}")

    def dsn(self, role: Role, *, application: str = "music") -> SecretStr:
        """A libpq connection string for `role`, shown as stars in repr and logs. Sessions run in UTC."""
        from psycopg2.extensions import make_dsn  # noqa: PLC0415  only who connects pays for the driver

        return SecretStr(
            make_dsn(
                host=self.host,
                port=self.port,
                dbname=self.database,
                user=role,
                password=self.password(role).get_secret_value(),
                connect_timeout=self.connect_seconds,
                # Packets are dropped silently: TCP alone would notice after a quarter of an hour.
                tcp_user_timeout=self.lost_seconds * 1000,
                keepalives_idle=self.lost_seconds,
                keepalives_interval=10,
                keepalives_count=3,
                application_name=application,
                options="-c TimeZone=UTC",
            )
        )

    def connect(self, role: Role, *, application: str = "music") -> connection:
        """A new connection as `role`, which the caller closes; psycopg2.OperationalError where there is none.

        This, `connection` and `admin_connection` are the only ways to the database.
        """
        import psycopg2  # noqa: PLC0415

        return psycopg2.connect(self.dsn(role, application=application).get_secret_value())

    def admin_environment(self, database: str = "postgres") -> dict[str, str]:
        """What libpq's programs read to be the superuser; they ask for no password."""
        return {
            "PGHOST": self.admin_host,
            "PGPORT": str(self.port),
            "PGUSER": "postgres",
            "PGDATABASE": database,
            "PGCONNECT_TIMEOUT": str(self.connect_seconds),
            "PGAPPNAME": "musicctl",
            "PGOPTIONS": "-c TimeZone=UTC",
        }

    @contextlib.contextmanager
    def admin_connection(self, database: str = "postgres") -> Iterator[connection]:
        """A connection as superuser, which only root on the board of PostgreSQL has; closed at the end."""
        import psycopg2  # noqa: PLC0415

        opened = psycopg2.connect(
            host=self.admin_host,
            port=self.port,
            user="postgres",
            dbname=database,
            connect_timeout=self.connect_seconds,
            application_name="musicctl",
            options="-c TimeZone=UTC",
        )
        with contextlib.closing(opened):
            yield opened

    @contextlib.contextmanager
    def connection(self, role: Role, *, application: str = "music") -> Iterator[connection]:
        """A connection as `role`, closed at the end of the block; what was not committed is rolled back."""
        with contextlib.closing(self.connect(role, application=application)) as opened:
            yield opened


class SparkSettings(_Section):
    """How the driver reaches the cluster and how much it takes; memory as the JVM writes it (768m, 2g)."""

    master: SparkMaster = "spark://127.0.0.1:7077"
    master_web_port: Port = 8080
    driver_host: Text = "127.0.0.1"
    driver_memory: JvmMemory = "224m"
    executor_memory: JvmMemory = "224m"
    executor_cores: Count = 2
    trigger_seconds: Annotated[float, Field(ge=0)] = 0.8
    max_offsets_per_trigger: Count = 50_000
    scratch_dir: Path = Path("/tmp/spark")  # noqa: S108  a tmpfs of the driver's container
    stall_seconds: Seconds = 180

    @property
    def statement_seconds(self) -> float:
        """What a statement of a batch may take: PostgreSQL cancels it before the job counts as stalled."""
        return self.stall_seconds / 3


class StreamSettings(_Section):
    """Rules of the stream and how long rows are kept.

    Windows of 5 minutes become hours after `fold_hours_after_days`, hours become days of the display time
    zone after `fold_days_after_days`, which is no less.
    clock_trusted: the board's clock is right though the kernel knows of no time server.
    """

    future_tolerance_seconds: Annotated[int, Field(ge=0)] = 300
    watermark_delay_seconds: Annotated[int, Field(ge=0)] = 600
    demo_retention_days: Count = 14
    fold_hours_after_days: Count = 14
    fold_days_after_days: Count = 90
    rejects_kept: Count = 100_000
    batches_kept_days: Count = 7
    clock_trusted: bool = False

    @model_validator(mode="after")
    def _hours_before_days(self) -> Self:
        if self.fold_days_after_days < self.fold_hours_after_days:
            raise ValueError("wanted fold_days_after_days no less than fold_hours_after_days")
        return self


class ProducerSettings(_Section):
    """The demo producer: how fast, which population, how much bad data, how much it holds.

    `pace` "model" lets `listeners` people play when they would, as in the history before; "rate" sends
    `rate` events per second. `listeners` 0 takes as many as make `rate` plays a second. `report` "start"
    sends a play as it starts, so that charts are full up to now; "end" when it is over, as real players do.
    `late`, `duplicate`, `malformed` and `ahead` are fractions of all plays. `history_days` of history come
    first, once; no more than [stream] demo_retention_days.
    """

    pace: Literal["model", "rate"] = "model"
    report: Literal["start", "end"] = "start"
    rate: Annotated[float, Field(gt=0, le=5000)] = 20.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42
    listeners: Annotated[int, Field(ge=0, le=1_000_000)] = 2_000
    artists: Annotated[int, Field(ge=100, le=100_000)] = 4_000
    locales: Annotated[tuple[Locale, ...], Field(min_length=1)] = (
        "en_US", "en_GB", "es_MX", "pt_BR", "de_DE", "fr_FR",
        "ja_JP", "ko_KR", "zh_TW", "hi_IN", "ar_EG", "ru_RU",
    )  # fmt: skip
    bad_data: bool = True
    late: Fraction = 0.02
    duplicate: Fraction = 0.001
    malformed: Fraction = 0.0005
    ahead: Fraction = 0.0002
    history_days: Annotated[int, Field(ge=0, le=3650)] = 14
    buffer_events: Count = 20_000
    buffer_bytes: Count = 32 * 1024 * 1024
    flush_seconds: Seconds = 10


class ScrobbleSettings(_Section):
    """Where the scrobble server answers; bind "*" is every address of the board, IPv4 and IPv6.

    infer_plays: what was playing and is never reported counts when half of it was heard, once it has been
    over for `infer_grace_seconds`.
    """

    bind: Text = "*"
    port: Port = 8090
    infer_plays: bool = False
    infer_grace_seconds: Annotated[float, Field(ge=0)] = 60


class SupersetSettings(_Section):
    """Where Superset answers, and whether it wants to be asked as by a proxy that speaks https.

    shared: whether others of the network may open it: by the addresses it binds to, and by the firewall.
    """

    url: WebAddress = "http://127.0.0.1:8088"
    https: bool = False
    shared: bool = True


class BackupSettings(_Section):
    """Where backups go and how many are kept there: the newest of so many days and of so many weeks.

    nightly: whether a timer takes one every night. place: a folder, or ``label:NAME`` for a disk by the label
    of its file system. copy_to: where rsync takes them besides, as ``USER@HOST:FOLDER`` or a folder; empty:
    nowhere.
    """

    nightly: bool = True
    place: Text = "/var/backups/music"
    daily: Count = 7
    weekly: Annotated[int, Field(ge=0)] = 4
    copy_to: str = ""


class PathSettings(_Section):
    """Folders: what the services write, and the data contract (topics.yml, schema/, dashboards/)."""

    data: Path = Path("/var/lib/music")
    files: Path = Path(__file__).with_name("files")


class Settings(BaseSettings):
    """Everything that can be set. `Settings.load()` reads the board's file; tests may build their own."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        hide_input_in_errors=True,
    )

    kafka: KafkaSettings = KafkaSettings()
    postgres: PostgresSettings = PostgresSettings()
    spark: SparkSettings = SparkSettings()
    stream: StreamSettings = StreamSettings()
    producer: ProducerSettings = ProducerSettings()
    scrobble: ScrobbleSettings = ScrobbleSettings()
    superset: SupersetSettings = SupersetSettings()
    backup: BackupSettings = BackupSettings()
    paths: PathSettings = PathSettings()
    display_time_zone: str = "UTC"

    @field_validator("display_time_zone")
    @classmethod
    def _known_time_zone(cls, name: str) -> str:
        if name != "UTC" and name not in zoneinfo.available_timezones():
            raise ValueError("wanted a name of the IANA time zone database such as Europe/Berlin")
        return name

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The file's content is what `load` gives: variables win over it.
        return env_settings, init_settings

    @classmethod
    def load(cls, path: Path | str | None = None) -> Settings:
        """Read `path`, else MUSIC_CONFIG, else /etc/music/music.toml, then the environment.

        The default file may be absent (built-in defaults); a file that was asked for by name may not.
        Raises SettingsError naming the key, what was found and wanted, and the file or variable to edit.
        """
        asked = path or os.environ.get(f"{ENV_PREFIX}CONFIG")
        file = Path(asked or DEFAULT_PATH)
        content = read_toml(file, needed=asked is not None)
        _refuse_unknown_variables(cls)
        try:
            return cls(**content)
        except ValidationError as error:
            raise SettingsError("\n".join(_explain(cls, item, file) for item in error.errors())) from None

    def secret(self, name: str) -> SecretStr:
        """The secret `name`, such as ``superset_admin``; raises SettingsError when it cannot be read."""
        return read_secret(self.postgres.secrets_dir, name)

    def with_changes(self, **sections: dict[str, Any]) -> Self:
        """A copy with some keys replaced and checked: ``settings.with_changes(producer={"rate": 5})``."""
        changed = {
            section: type(getattr(self, section)).model_validate(getattr(self, section).model_dump() | values)
            for section, values in sections.items()
        }
        return self.model_copy(update=changed)


def _refuse_unknown_variables(model: type[Settings]) -> None:
    # pydantic-settings ignores variables of unknown sections: a typing error would go unnoticed.
    for variable in os.environ:
        section, delimiter, _ = variable.removeprefix(ENV_PREFIX).partition("__")
        if variable.startswith(ENV_PREFIX) and delimiter and section.lower() not in model.model_fields:
            wanted = ", ".join(name.upper() for name, _ in _sections(model))
            raise SettingsError(
                f"Environment variable {variable}: found section {section}, wanted one of {wanted}. "
                f"Remedy: unset {variable} or correct its name."
            )


def _sections(model: type[Settings]) -> list[tuple[str, type[BaseModel]]]:
    return [
        (name, field.annotation)
        for name, field in model.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    ]


def _explain(model: type[Settings], error: Any, file: Path) -> str:
    section, *keys = (str(part) for part in error["loc"])
    key = keys[0] if keys else ""
    title = f"[{section}] {key}" if key else section
    wanted_variable = "__".join(part.upper() for part in (f"{ENV_PREFIX}{section}", key) if part)
    variable = next((name for name in os.environ if name.upper() == wanted_variable), None)
    place = f"environment variable {variable}" if variable else str(file)
    if error["type"] == "extra_forbidden":
        names = list(dict(_sections(model))[section].model_fields if key else model.model_fields)
        close = difflib.get_close_matches(key or section, names, n=1)
        remedy = f"rename it to {close[0]}" if close else "remove it"
        return (
            f"Setting {title} in {place}: found an unknown name, wanted one of {', '.join(names)}. "
            f"Remedy: {remedy}."
        )
    wanted = error["msg"].replace("String should match", "text of the")
    for preface in ("Value error, wanted ", "Input should be "):
        wanted = wanted.removeprefix(preface)
    remedy = "correct it in the inventory and run the play (site.yml)"
    if variable:
        remedy = f"correct or unset {variable}"
    return f"Setting {title} in {place}: found {error['input']!r}, wanted {wanted}. Remedy: {remedy}."
