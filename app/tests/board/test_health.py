"""What a board's health tells, from fixtures in the shape of the kernel's and the firmware's files."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from surroundings import docker_with

from music_streaming.board import health, noted, pi
from music_streaming.board.doctor import BROKEN, NOTE, OK, Diagnosis, Step
from music_streaming.board.engine import Engine
from music_streaming.board.growth import Growth
from music_streaming.board.health import RED, YELLOW, Finding, Health, Written, banner
from music_streaming.board.machine import Board
from music_streaming.board.status import Counted, Status
from music_streaming.board.systemd import Systemd

NOW = datetime(2026, 11, 28, 2, tzinfo=UTC)
WELL = Diagnosis([Step("board", OK, "11 units installed")])


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def names(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.name) for finding in findings]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("0", []),
        ("50000", [(YELLOW, "under-voltage")]),
        ("50005", [(RED, "under-voltage"), (YELLOW, "throttled")]),
        ("8", [(YELLOW, "throttled")]),
        ("e0000", []),
    ],
)
def test_the_firmware_tells_of_voltage_and_throttling(tmp_path, said, expected):
    put(tmp_path, pi.FIRMWARE, f"{said}\n")
    assert names(health.of_the_pi(tmp_path)) == expected


def test_vcgencmd_is_asked_where_sysfs_has_nothing(tmp_path, monkeypatch):
    put(tmp_path, "bin/vcgencmd", "#!/bin/sh\n[ $1 = get_throttled ] && echo throttled=0x50005\n")
    (tmp_path / "bin/vcgencmd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin")
    assert pi.throttled(tmp_path) == pi.Throttled(0x50005)
    monkeypatch.setenv("PATH", "/nowhere")
    assert pi.throttled(tmp_path) is None
    for said in ('error=1 error_msg="Command not registered"', "throttled=", ""):
        assert pi.read_throttled(said) is None


@pytest.mark.parametrize(
    ("millidegrees", "expected"),
    [("79900", []), ("80100", [(YELLOW, "temperature")]), ("85000", [(RED, "temperature")]), ("?", [])],
)
def test_a_warm_board(tmp_path, millidegrees, expected):
    put(tmp_path, "sys/class/thermal/thermal_zone0/temp", "41000\n")
    put(tmp_path, "sys/class/thermal/thermal_zone1/temp", f"{millidegrees}\n")
    assert names(health.of_the_pi(tmp_path)) == expected


def test_what_groups_write_is_read_from_io_stat_or_their_processes(tmp_path):
    put(
        tmp_path,
        "sys/fs/cgroup/a.slice/io.stat",
        "179:0 rbytes=9 wbytes=4096 rios=1 wios=1 dbytes=0 dios=0\n8:0 wbytes=100\n7:0 \n",
    )
    put(tmp_path, "sys/fs/cgroup/b.slice/cgroup.procs", "11\n12\n13\n")
    put(tmp_path, "proc/11/io", "rchar: 1\nwrite_bytes: 7000\ncancelled_write_bytes: 1\n")
    put(tmp_path, "proc/12/io", "write_bytes: 5\n")
    groups = {"kafka": "/a.slice", "job": "/b.slice", "gone": "/c.slice"}
    assert pi.written_by_groups(groups, tmp_path) == {"kafka": 4196, "job": 7005, "gone": 0}


def test_the_disk_counts_sectors(tmp_path):
    device = tmp_path.stat().st_dev
    name = f"sys/dev/block/{device >> 8 & 0xFFF}:{device & 0xFF}/stat"
    assert pi.written_to_disk(tmp_path, tmp_path) is None
    put(tmp_path, name, "   100  0  800  10  20  0  2048  30  0  40  50\n")
    assert pi.written_to_disk(tmp_path, tmp_path) == 2048 * 512


def test_containers_and_units_are_accounted_by_service(units, tmp_path, settings):
    units.states["music-producer"]["ControlGroup"] = "/system.slice/music-producer.service"
    put(tmp_path, "sys/fs/cgroup/system.slice/music-producer.service/io.stat", "8:0 wbytes=10\n")
    identity = "c" * 64
    put(tmp_path, f"sys/fs/cgroup/system.slice/docker-{identity}.scope/io.stat", "8:0 wbytes=20\n")
    with docker_with(tmp_path, containers={"music-kafka": identity}) as socket:
        board = Board(settings, Systemd(units.address, 5), Engine(socket, 5), tmp_path)
        assert health.written_now(board) == {"music-producer": 10, "music-kafka": 20}


def test_wear_is_bytes_a_day_and_a_new_start_counts_from_zero():
    before = Written(NOW, {"disk": 10**9, "music-kafka": 5 * 10**8, "job": 800})
    now = Written(NOW + timedelta(hours=1), {"disk": 2 * 10**9, "music-kafka": 11 * 10**8, "job": 200})
    a_day = health.written_a_day(before, now)
    assert a_day == {"disk": 24 * 10**9, "music-kafka": 144 * 10**8, "job": 4800}
    (finding,) = health.of_the_wear(a_day)
    assert (finding.level, finding.name) == (YELLOW, "wear")
    assert "most by music-kafka" in finding.found
    assert health.of_the_wear({"disk": 10**9}) == []
    assert health.written_a_day(None, now) == {}
    assert health.written_a_day(Written(now.at - timedelta(minutes=1), {}), now) == {}


def status(problems: list[str], days: int | None = None) -> Status:
    growth = Growth([], None, None, days)
    counted = Counted([], {}, {}, 0, {}, None, None, 0, [], None, growth)
    return Status(at=NOW, counted=counted, problems=problems)


def test_red_comes_first_and_the_broken_link_stands_for_what_follows_from_it(units, tmp_path, settings):
    board = Board(settings, Systemd(units.address, 5), Engine(str(tmp_path / "none"), 1), tmp_path)
    note = Step("clock", NOTE, "not synchronised", remedy="timedatectl", kind="clock-alone")
    broken = Step("kafka", BROKEN, "stopped", remedy="sudo systemctl start music-kafka", kind="unit-stopped")
    found = health.examine(board, status(["Kafka: away"], 20), Diagnosis([note, broken]), None)
    assert names(found.findings) == [
        (RED, "kafka: unit-stopped"),
        (YELLOW, "clock: clock-alone"),
        (YELLOW, "disk"),
    ]
    assert found.red[0].command == "sudo systemctl start music-kafka"
    found = health.examine(board, status(["backup: found the newest 4 days old"], 3), WELL, None)
    assert names(found.findings) == [(RED, "status: backup"), (RED, "disk")]
    assert health.examine(board, status([]), WELL, None).findings == []


@pytest.mark.parametrize(
    ("hour", "week", "expected"),
    [
        ((99, 99), 0, 0),
        ((120, 120), 0, 1),
        ((120, 12_000), 0, 1),
        ((259, 494_000), 0, 0),
        ((120, 120), 2016, 0),
        ((2000, 2000), 2016, 1),
    ],
)
def test_a_surge_of_rejects(settings, database, hour, week, expected):
    """hour: rejects of the last one, and all its records; week: rejects of the one before, 12 an hour for 2016."""
    insert = (
        "INSERT INTO ingest_batches (topic, records, accepted, duplicates, late, rejected, tombstones, read_at,"
        " committed_at) VALUES ('x', %s, 0, 0, 0, %s, 0, now(), now() - %s)"
    )
    with contextlib.closing(database.connect("music_writer")) as connection, connection:
        for count, records, before in (
            (*hour, timedelta(minutes=5)),
            (week, week, timedelta(days=7)),
        ):
            connection.cursor().execute(insert, (records, count, before))
    assert len(health.of_the_database(Board(settings))) == expected


def test_no_database_is_no_surge(settings):
    assert health.of_the_database(Board(settings.with_changes(postgres={"port": 1}))) == []


def test_state_and_banner_are_files_that_everybody_may_read(tmp_path):
    found = Health(
        NOW, [Finding(RED, "disk", "full in 3 days", "sudo musicctl status")], Written(NOW, {"disk": 7})
    )
    health.write_banner(tmp_path, found)
    shown = (tmp_path / health.MOTD).read_text()
    assert shown.splitlines() == [
        "music: 1 red, 0 yellow (2026-11-28 02:00 UTC)",
        "  RED    disk: full in 3 days",
        "         sudo musicctl status",
    ]
    assert banner(Health(NOW, [], Written(NOW, {}))) == "music: all is well (2026-11-28 02:00 UTC)\n"
    path = tmp_path / "health/state.json"
    health.write_state(path, found.to_dict())
    assert path.stat().st_mode & 0o777 == 0o644
    assert health.written_before(health.read_state(path)) == found.written
    path.write_text("half")
    assert health.written_before(health.read_state(path)) is None


def test_pipeline_health_shows_the_last_look_red_first(settings, database):
    looked = Health(
        NOW,
        [Finding(RED, "disk", "full in 3 days", "sudo musicctl status"), Finding(YELLOW, "wear", "x", "y")],
        Written(NOW, {}),
        {"disk": 3 * 10**9, "music-kafka": 10**9},
    )
    noted.write(settings.postgres, "pi", looked)
    noted.write(settings.postgres, "other", looked)
    found = "SELECT level, name, found, command FROM board_findings WHERE board = 'pi' ORDER BY position"
    assert [row[:2] for row in database.rows(found)] == [("red", "disk"), ("yellow", "wear")]
    written = "SELECT service, bytes_a_day FROM board_writes WHERE board = 'pi' ORDER BY 2"
    assert database.rows(written) == [("music-kafka", 10**9), ("disk", 3 * 10**9)]
    noted.write(settings.postgres, "pi", Health(NOW, [], Written(NOW, {})))
    assert database.rows(found) == [("green", "board", "all is well", "sudo musicctl health")]
    assert database.rows(written) == []
    # A board that was called otherwise goes.
    database.rows("UPDATE board_findings SET noted_at = now() - interval '8 days'", role="music_owner")
    noted.write(settings.postgres, "pi", looked)
    assert database.rows("SELECT DISTINCT board FROM board_findings") == [("pi",)]
