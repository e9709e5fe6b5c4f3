"""systemd is asked over a real bus; the journal's lines are read as journalctl documents them."""

from __future__ import annotations

import pytest
from surroundings import ALL, IMAGE, docker_with

from music_streaming.board.engine import Engine, EngineError
from music_streaming.board.systemd import NotAllowedError, Systemd, SystemdError, journal, read_journal


@pytest.fixture
def systemd(units):
    return Systemd(units.address, seconds=5)


def test_installed_units_are_those_of_the_appliance(systemd):
    assert systemd.installed() == [name for name in ALL if name.startswith("music-")]


def test_a_unit_has_its_state_and_the_image_that_it_runs(systemd, units):
    units.states["music-kafka"] |= {"ActiveState": "failed", "Result": "exit-code", "NRestarts": 3}
    unit = systemd.unit("music-kafka")
    assert (unit.load, unit.active, unit.result, unit.restarts, unit.image) == (
        "loaded", "failed", "exit-code", 3, IMAGE,
    )  # fmt: skip
    assert systemd.unit("music-nothing").load == "not-found"


def test_a_unit_is_started_and_enabled(systemd, units):
    units.states["music-kafka"] |= {"ActiveState": "inactive", "UnitFileState": "disabled"}
    systemd.start("music-kafka")
    systemd.start("music-kafka", again=True)
    systemd.enable("music-kafka")
    assert systemd.unit("music-kafka").active == "active"
    assert systemd.unit("music-kafka").enabled == "enabled"
    assert units.calls == [
        ("StartUnit", "music-kafka"),
        ("RestartUnit", "music-kafka"),
        ("EnableUnitFiles", "music-kafka"),
        ("Reload", ""),
    ]


def test_who_is_not_root_is_told_so(systemd, units):
    units.refuse = True
    with pytest.raises(NotAllowedError, match="StartUnit"):
        systemd.start("music-kafka")


@pytest.mark.parametrize("bus", ["unix:path=/nowhere/bus", "nonsense"])
def test_a_bus_that_is_not_there_is_an_error(bus):
    with pytest.raises(SystemdError, match="no answer by D-Bus"):
        Systemd(bus, seconds=2).installed()


def test_a_systemd_that_does_not_answer_is_given_up(units):
    units._ending = True
    units._thread.join()
    with pytest.raises(SystemdError, match="no answer by D-Bus"):
        Systemd(units.address, seconds=0.3).installed()


ENTRIES = b"""\
{"MESSAGE":"Started.","__REALTIME_TIMESTAMP":"1795780800000000","PRIORITY":"6","_SYSTEMD_UNIT":"music-kafka.service"}
{"MESSAGE":[111,104,27,255],"__REALTIME_TIMESTAMP":"1795780801500000"}
{"MESSAGE":"two\\nlines","__REALTIME_TIMESTAMP":"1795780802000000"}
{"MESSAGE":null,"__REALTIME_TIMESTAMP":"1795780803000000"}
"""


def test_the_journal_is_read_as_it_is_documented():
    assert read_journal(ENTRIES) == [
        "2026-11-27 12:00:00 Started.",
        "2026-11-27 12:00:01 oh\x1b�",
        "2026-11-27 12:00:02 two",
        "2026-11-27 12:00:02 lines",
    ]


def test_a_journal_that_cannot_be_read_says_why(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    (line,) = journal("music-kafka")
    assert line.startswith("(the journal cannot be read: ")


def test_docker_tells_its_version_and_what_it_lacks(tmp_path):
    with docker_with(tmp_path, IMAGE) as socket:
        engine = Engine(socket)
        assert engine.may_ask
        assert engine.version() == "26.1.5+dfsg1"
        assert engine.missing([IMAGE, "music/spark:1"]) == ["music/spark:1"]
    with pytest.raises(EngineError):
        Engine(str(tmp_path / "nowhere")).version()
