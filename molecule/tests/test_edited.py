"""The owner changed the inventory: every place has the new values, nothing is lost, shrinking is refused."""

from __future__ import annotations

import socket

import httpx
import pytest

from conftest import PROJECT, count_of_a_dataset, wait_for

SETTINGS = ("-e", "@molecule/edited/settings.yml")
# Holds both locks of the package tools, then that of dpkg alone.
PACKAGE_TOOL = """\
import fcntl, pathlib, time
held = [open(path, "a") for path in ("/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock")]
for file in held:
    fcntl.lockf(file, fcntl.LOCK_EX)
for word in ("both", "dpkg", "none"):
    pathlib.Path("/run/package-tool").write_text(word)
    if held:
        time.sleep(20)
        held.pop().close()
"""


def login(board, password: str) -> int:
    """HTTP status of a login over REST from the control node, which the new source range lets in."""
    body = {"username": "admin", "password": password, "provider": "db"}
    return httpx.post(f"http://{board.address}:8088/api/v1/security/login", json=body, timeout=60).status_code


def before(board, name: str) -> str:
    """A secret as it was before the owner changed it."""
    return board.ssh(f"sudo cat /root/secrets-before/{name}").stdout.strip()


def test_the_administrator_has_the_new_password_only(board):
    assert board.ssh("sudo cat /etc/music/secrets/superset_admin").stdout.strip() == "another-Admin-pass.1"
    assert login(board, "another-Admin-pass.1") == 200
    assert login(board, before(board, "superset_admin")) == 401


def test_plays_are_passed_on(board):
    """By a service that can read where to, and nobody else can."""
    said = "sudo journalctl --unit music-forward --output cat"
    wait_for("a destination", lambda: "nobody to maloja: begins at" in board.ssh(said).stdout)
    assert board.ssh("systemctl is-active music-forward").stdout.strip() == "active"
    user = board.ssh("systemctl show --property=User --value music-forward").stdout.strip()
    assert board.ssh("stat -c '%a %U' /etc/music/secrets/forward").stdout.split() == ["600", user]
    assert "forw@rd" not in board.ssh("systemctl cat music-forward; cat /etc/music/music.toml").stdout


def test_a_password_that_its_user_chose_stays(board, play):
    """Over a restart of Superset and a run with the same inventory."""
    chosen = "chosen-by-the-user.7"
    with board.superset_admin() as admin:
        admin.put("/api/v1/me/", json={"password": chosen}).raise_for_status()
    try:
        board.ssh("sudo systemctl restart music-superset")
        done = play("site.yml", *SETTINGS, "--tags", "superset")
        assert done.returncode == 0, done.stdout[-3000:]
        assert "changed=0" in done.stdout, done.stdout[-3000:]
        assert login(board, chosen) == 200
        assert login(board, "another-Admin-pass.1") == 401
    finally:
        with board.superset("admin", chosen) as admin:
            admin.put("/api/v1/me/", json={"password": "another-Admin-pass.1"}).raise_for_status()


@pytest.mark.parametrize(
    "role", ["music_owner", "music_writer", "music_scrobble", "superset_reader", "superset"]
)
def test_roles_of_the_database_have_the_new_password_only(board, role):
    database = "superset" if role == "superset" else "music_streaming"

    def log_in(folder: str) -> int:
        ask = f"PGPASSWORD=$(cat {folder}/postgres_{role}) psql -h 127.0.0.1 -U {role} -l {database}"
        return board.ssh(f"sudo sh -c '{ask}'", check=False).returncode

    assert log_in("/etc/music/secrets") == 0
    assert log_in("/root/secrets-before") == 2


def test_what_the_old_secret_key_encrypted_is_read_and_what_it_signed_is_not(board):
    """The connection's password is stored encrypted: a chart that has rows was read with it."""
    with board.superset_admin() as admin:
        answer = count_of_a_dataset(admin)
        assert answer.status_code == 200, answer.text
        admin.headers["Authorization"] = f"Bearer {before(board, 'session')}"
        assert admin.get("/api/v1/me/").status_code in (401, 422)


def test_no_secret_is_in_what_ansible_printed(board):
    """Neither in what the stories' runs said, nor in the killed one, which told every result and every difference."""
    printed = (PROJECT / ".cache/ansible.log").read_text(encoding="utf-8")
    assert "TASK [superset : " in printed
    files = board.ssh("sudo sh -c 'grep -H . /etc/music/secrets/* /root/secrets-before/*'").stdout
    secrets = dict(line.split(":", 1) for line in files.splitlines())
    assert len(secrets) > 10, list(secrets)
    # Quotes would be printed with a backslash.
    assert [path for path, secret in secrets.items() if secret.partition("'")[0] in printed] == []


def test_files_of_another_owner_were_given_to_the_database(board):
    assert board.ssh("sudo find /var/lib/music/postgres ! -user music-postgres").stdout == ""


def test_parts_that_read_passwords_are_at_work(board):
    # The odd characters of the reader's password work in musicctl.
    assert board.sql("SELECT current_user") == [["superset_reader"]]
    board.ssh("sudo musicctl trace")


def test_partitions_grew_and_the_stream_reads_them(board):
    def read() -> int:
        return int(
            board.sql(
                "SELECT count(*) FROM ingest_offsets WHERE topic = 'stream_events' AND next_offset > 0"
            )[0][0]
        )

    wait_for("offsets of 6 partitions", lambda: read() == 6)
    board.ssh("sudo musicctl validate")


def test_a_dry_run_on_a_board_that_is_set_up_finds_nothing_to_do(play):
    done = play("site.yml", *SETTINGS, "--check", "--diff")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "changed=0" in done.stdout, done.stdout[-3000:]


def test_shrinking_is_refused_before_any_change(board, play):
    done = play("site.yml", *SETTINGS, "-e", "pipeline_topic_partitions=3")
    assert done.returncode != 0
    output = " ".join(done.stdout.split())
    assert "6" in output
    assert "3" in output
    assert "partitions" in output, done.stdout[-3000:]
    assert "changed=0" in output


def test_another_cluster_id_is_refused_with_both_named(board, play):
    kept = board.ssh("sudo grep -h ^cluster.id= /var/lib/music/kafka/meta.properties").stdout.strip()
    other = "AAAAAAAAAAAAAAAAAAAAAQ"
    done = play("site.yml", *SETTINGS, "-e", f"kafka_cluster_id={other}")
    assert done.returncode != 0
    assert other in done.stdout, done.stdout[-3000:]
    assert kept.removeprefix("cluster.id=") in done.stdout, done.stdout[-3000:]
    assert board.ssh("sudo grep -h ^cluster.id= /var/lib/music/kafka/meta.properties").stdout.strip() == kept


def test_a_disk_that_keeps_no_owners_is_refused_before_any_change(board, play):
    board.ssh(
        "sudo sh -ec 'apt-get install -y -q --no-install-recommends exfat-fuse exfatprogs >/dev/null;"
        " [ -e /dev/fuse ] || mknod /dev/fuse c 10 229; [ -e /dev/loop6 ] || mknod /dev/loop6 b 7 6;"
        " truncate -s 16M /run/stick.img; mkfs.exfat /run/stick.img >/dev/null; losetup /dev/loop6 /run/stick.img;"
        " mkdir -p /mnt/stick; mount.exfat-fuse /dev/loop6 /mnt/stick'"
    )
    try:
        done = play("site.yml", *SETTINGS, "-e", "music_data_root=/mnt/stick/music")
    finally:
        board.ssh("sudo sh -c 'umount /mnt/stick; losetup -d /dev/loop6; rm /run/stick.img'")
    assert done.returncode != 0
    assert "Found the file system fuseblk under /mnt/stick/music" in " ".join(done.stdout.split())
    assert "changed=0" in done.stdout


def test_a_run_waits_for_other_package_tools(board, play):
    """As on a first boot, when the daily upgrade holds the locks of apt and dpkg."""
    board.ssh(
        "sudo sh -ec 'apt-get remove -y -q zstd >/dev/null; rm -f /var/lib/apt/periodic/update-success-stamp;"
        ' touch -d "2 days ago" /var/lib/apt/lists\''
    )
    board.ssh(f"sudo tee /run/package-tool.py >/dev/null <<'SCRIPT'\n{PACKAGE_TOOL}SCRIPT")
    board.ssh("sudo systemd-run --quiet --collect --unit package-tool python3 /run/package-tool.py")
    wait_for("both locks held", lambda: board.ssh("cat /run/package-tool", check=False).stdout == "both")
    done = play("site.yml", *SETTINGS, "--tags", "board")
    assert done.returncode == 0, done.stdout[-3000:]
    assert board.ssh("cat /run/package-tool").stdout == "none"
    released, installed = board.ssh(
        "stat -c %Z /run/package-tool /var/lib/dpkg/info/zstd.list"
    ).stdout.split()
    assert int(installed) >= int(released)
    timers = board.ssh("systemctl is-enabled apt-daily.timer apt-daily-upgrade.timer").stdout.split()
    assert timers == ["enabled", "enabled"]


@pytest.mark.parametrize("address", ["address", "address6"])
def test_dashboards_answer_their_sources_only(board, address):
    """This machine is one of them, the one that scans is not; site.yml has run more than three times by now."""
    target = getattr(board, address)
    for port in (8088, 8090):
        with socket.create_connection((target, port), timeout=5):
            pass
    assert board.open_ports(target) == ["22/open/tcp"]


def test_the_rate_is_the_new_one(board):
    def accepted() -> tuple[int, float]:
        row = board.sql("SELECT sum(accepted), extract(epoch FROM now()) FROM ingest_totals")[0]
        return int(row[0]), float(row[1])

    first, t0 = accepted()
    wait_for("1000 more plays", lambda: accepted()[0] > first + 1000, seconds=90)
    last, t1 = accepted()
    assert 35 < (last - first) / (t1 - t0) < 65, (first, last, t1 - t0)
