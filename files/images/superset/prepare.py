"""Prepare Superset's metadata database, then become the command given: ``prepare.py COMMAND ARGUMENT...``.

One process does what four calls of the superset command would do (each spends ten seconds on imports):
migrate, re-encrypt after a new secret key, synchronise permissions, set up the two accounts. When nothing
has changed since the last time, Superset is not even imported. What was done is remembered in the metadata
database itself, table ``music_prepared``, so that a restored backup is prepared again for as far as it
needs to be.

Accounts: the people's administrator, whose password is set only when its secret has changed since it was
last set (a password chosen in the web interface stays), and ``appliance``, with which musicctl imports the
dashboards and whose password is always that of its secret.
"""

# Superset is imported only when there is something to do.
# ruff: noqa: PLC0415

import hashlib
import hmac
import importlib.util
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool
from werkzeug.security import check_password_hash, generate_password_hash

APPLIANCE_USER = "appliance"
VIEWER_ROLE = "Viewer"
# Beginnings of permissions that change something, and the views where a page that only looks needs them: it
# keeps the state of its filters there.
CHANGING = ("can_write", "can_add", "can_edit", "can_delete", "can_import", "can_set", "can_tag", "can_bulk")
KEPT_FOR_FILTERS = ("DashboardFilterStateRestApi", "ExploreFormDataRestApi", "DashboardPermalinkRestApi")
DATABASE_WAIT_SECONDS = 120
PREPARE_LOCK = 5004  # key of the advisory lock; any number that nobody else uses in this database

PREPARED = sa.Table(
    "music_prepared",
    sa.MetaData(),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)


def read_config(path: Path) -> ModuleType:
    """superset_config.py as a module. It imports nothing of Superset, so this is quick."""
    spec = importlib.util.spec_from_file_location("superset_config", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"superset: found no readable configuration at {path}, wanted a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def connect(uri: str) -> Engine:
    """The metadata database, waited for: after a power cut both services start at the same moment."""
    # No pool: closing a connection has to end its session, and with it the advisory lock.
    engine = sa.create_engine(uri, future=True, poolclass=NullPool)
    deadline = time.monotonic() + DATABASE_WAIT_SECONDS
    while True:
        try:
            with engine.connect():
                return engine
        except OperationalError as error:
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"superset: no metadata database after {DATABASE_WAIT_SECONDS} s ({error.orig}); "
                    "wanted PostgreSQL's database superset: look at systemctl status music-postgres"
                ) from None
            time.sleep(1)


def fingerprint(config_file: Path) -> str:
    """Changes with whatever can change the schema or the permissions: any package, this program, the
    configuration.
    """
    digest = hashlib.sha256()
    for name in sorted(f"{d.metadata['Name']}=={d.version}" for d in distributions()):
        digest.update(name.encode())
    for file in (config_file, *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def key_mark(secret_key: str) -> str:
    """Recognises a secret key again without telling it."""
    return hmac.new(secret_key.encode(), b"music_prepared", hashlib.sha256).hexdigest()


class Account:
    """A name, the secret that holds its password, and whether that secret has to be applied now."""

    def __init__(self, name: str, secret: Path, people_may_change_it: bool) -> None:
        self.name = name
        self.password = secret.read_text().rstrip("\n")
        self.mark = f"password of {name}"
        self.people_may_change_it = people_may_change_it

    def is_due(self, engine: Engine, prepared: dict[str, str]) -> bool:
        with engine.connect() as connection:
            stored = connection.execute(
                sa.text(
                    "select u.password from ab_user u join ab_user_role ur on ur.user_id = u.id "
                    "join ab_role r on r.id = ur.role_id "
                    "where u.username = :name and u.active and r.name = 'Admin'"
                ),
                {"name": self.name},
            ).scalar()
        if self.people_may_change_it:
            # Somebody may also have renamed, demoted or removed this account: theirs to decide.
            applied = prepared.get(self.mark)
            return applied is None or not check_password_hash(applied, self.password)
        return stored is None or not check_password_hash(stored, self.password)

    def apply(self, security_manager: Any) -> None:
        user = security_manager.find_user(username=self.name)
        if user is None:
            user = security_manager.add_user(
                self.name,
                "Music",
                self.name,
                f"{self.name}@music.invalid",
                security_manager.find_role("Admin"),
                password=self.password,
            )
            if not user:
                raise SystemExit(
                    f"superset: the account {self.name} could not be made; the lines above say why"
                )
            return
        user.active = True
        user.roles = list({*user.roles, security_manager.find_role("Admin")})
        security_manager.reset_password(user.id, self.password)


def migrate(app: Any) -> None:
    """The schema of the metadata, to the version of this Superset."""
    from flask_migrate import upgrade

    with app.app_context():
        upgrade()


def re_encrypt(app: Any, engine: Engine, config: ModuleType, prepared: dict[str, str]) -> None:
    """Move stored passwords from the previous secret key to the present one, and read each back."""
    if prepared.get("secret key") in (None, key_mark(config.SECRET_KEY)):
        return
    previous = getattr(config, "PREVIOUS_SECRET_KEY", None)
    if previous is None or key_mark(previous) != prepared["secret key"]:
        raise SystemExit(
            "superset: found another secret key than the one that encrypted the stored passwords, and "
            + ("no previous key" if previous is None else "a previous key that is not it either")
            + "; wanted the old key: put it back into superset_secret_key (or, to rotate, into "
            "superset_previous_secret_key) and run site.yml again"
        )
    from flask_appbuilder import Model
    from sqlalchemy_utils import EncryptedType

    # Superset's own re-encrypt-secrets says that all is done and has done nothing: it looks for the columns
    # in the metadata object of Flask-SQLAlchemy, which is empty; the tables are in Flask-AppBuilder's.
    with app.app_context(), engine.begin() as connection:
        count = 0
        for table in Model.metadata.tables.values():
            for column in (c for c in table.columns if isinstance(c.type, EncryptedType)):
                count += move(connection, column, EncryptedType(column.type.underlying_type, key=previous))
        remember(connection, {"secret key": key_mark(config.SECRET_KEY)})
    print(f"superset: {count} stored secrets re-encrypted with the new secret key", flush=True)


def move(connection: Connection, column: Any, previous_type: Any) -> int:
    """Re-encrypt one column from the key of `previous_type` to its own, reading each value back; how many."""
    raw = sa.type_coerce(column, sa.LargeBinary)
    rows = connection.execute(sa.select(column.table.c.id, raw).where(raw.is_not(None))).all()
    for identifier, value in rows:
        clear = previous_type.process_result_value(bytes(value), connection.dialect)
        encrypted = column.type.process_bind_param(clear, connection.dialect)
        if column.type.process_result_value(encrypted, connection.dialect) != clear:
            raise SystemExit(f"superset: {column} of row {identifier} cannot be read with the new secret key")
        connection.execute(
            column.table.update()
            .where(column.table.c.id == identifier)
            .values({column.name: sa.type_coerce(encrypted, sa.LargeBinary)})
        )
    return len(rows)


def remember(connection: Connection, facts: dict[str, str]) -> None:
    """Replace these rows of music_prepared."""
    connection.execute(PREPARED.delete().where(PREPARED.c.name.in_(facts)))
    connection.execute(PREPARED.insert(), [{"name": name, "value": value} for name, value in facts.items()])


def set_up_viewer(security_manager: Any) -> None:
    """The role for those who are to look at every dashboard and change none: Gamma without what changes."""
    viewer = security_manager.add_role(VIEWER_ROLE)
    viewer.permissions = [
        found
        for found in security_manager.find_role("Gamma").permissions
        if not found.permission.name.startswith(CHANGING) or found.view_menu.name in KEPT_FOR_FILTERS
    ]
    viewer.permissions.append(
        security_manager.add_permission_view_menu("all_datasource_access", "all_datasource_access")
    )


def synchronise(app: Any, accounts: list[Account]) -> None:
    """Permissions and roles of this Superset's views, then the accounts that are due."""
    from superset import appbuilder, security_manager
    from superset.extensions import db

    with app.app_context():
        appbuilder.add_permissions(update_perms=True)
        security_manager.sync_role_definitions()
        set_up_viewer(security_manager)
        for account in accounts:
            account.apply(security_manager)
        db.session.commit()


def prepare(config_file: Path) -> None:
    config = read_config(config_file)
    engine = connect(config.SQLALCHEMY_DATABASE_URI)
    people = Account(config.MUSIC_ADMIN_USER, config.MUSIC_SECRETS / "superset_admin", True)
    appliance = Account(APPLIANCE_USER, config.MUSIC_SECRETS / "superset_appliance", False)
    wanted = {"program": fingerprint(config_file), "secret key": key_mark(config.SECRET_KEY)}

    with engine.connect() as lock:
        # Two containers at once (an update while the old one still stops) take turns.
        if engine.dialect.name == "postgresql":
            lock.execute(sa.select(sa.func.pg_advisory_lock(PREPARE_LOCK)))
        PREPARED.create(engine, checkfirst=True)
        with engine.connect() as connection:
            prepared = {row.name: row.value for row in connection.execute(sa.select(PREPARED))}
        complete = sa.inspect(engine).has_table("ab_user_role")
        due = [a for a in (people, appliance) if not complete or a.is_due(engine, prepared)]
        if complete and not due and wanted.items() <= prepared.items():
            return

        print("superset: preparing the metadata", flush=True)
        steps: list[tuple[str, Callable[[Any], None]]] = [
            ("schema", migrate),
            ("secret key", lambda app: re_encrypt(app, engine, config, prepared)),
            ("permissions and accounts", lambda app: synchronise(app, due)),
        ]
        from superset.app import create_app

        app = create_app()
        for name, step in steps:
            began = time.monotonic()
            step(app)
            print(f"superset: {name} done in {time.monotonic() - began:.1f} s", flush=True)

        wanted |= {a.mark: generate_password_hash(a.password) for a in due if a.people_may_change_it}
        with engine.begin() as connection:
            remember(connection, wanted)


if __name__ == "__main__":
    prepare(Path(os.environ["SUPERSET_CONFIG_PATH"]))
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606
