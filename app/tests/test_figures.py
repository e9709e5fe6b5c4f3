"""What a missed figure costs at the end of `make test`."""

from __future__ import annotations

from pathlib import Path

import pytest

import figures


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for figures and reports in which all tests have passed."""
    monkeypatch.setattr(figures, "CACHE", tmp_path)
    monkeypatch.setattr(figures, "FILE", tmp_path / "figures.jsonl")
    (tmp_path / "junit").mkdir()
    (tmp_path / "junit/app.xml").write_text('<testsuites><testsuite tests="3"/></testsuites>')
    return tmp_path


MEMORY = {"unit": "GB", "at_most": 2.5}
EXACT = {"unit": "", "at_least": 20}
TIME = {"unit": "s", "at_most": 60}
LONG = {"unit": "min", "at_most": 4}
SPEED = {"unit": "events/s", "at_least": 1000}


@pytest.mark.parametrize(
    ("value", "target", "word"),
    [
        (2.5, MEMORY, "ok"),
        (2.51, MEMORY, "failed"),
        (20, EXACT, "ok"),
        (19, EXACT, "failed"),
        (60, TIME, "ok"),
        (61, TIME, "missed"),
        (120, TIME, "missed"),
        (121, TIME, "failed"),
        (7.9, LONG, "missed"),
        (8.1, LONG, "failed"),
        (501, SPEED, "missed"),
        (499, SPEED, "failed"),
        (float("nan"), MEMORY, "failed"),
        (5, {"unit": "s"}, ""),
    ],
)
def test_memory_and_exactness_fail_at_their_target_and_times_at_twice_theirs(
    cache, capsys, value, target, word
):
    figures.add("the figure", value, **target)
    assert figures.verdict(figures.noted()[0]) == word
    if word == "failed":
        with pytest.raises(SystemExit) as ended:
            figures.print_table()
        assert ended.value.code == 1
    else:
        figures.print_table()
    said = capsys.readouterr().out
    assert word in said
    assert ("beyond what is allowed: the figure" in said) == (word == "failed")


@pytest.mark.parametrize("attributes", ['tests="3" failures="1"', 'tests="3" errors="1"', 'tests="0"'])
def test_a_failed_test_fails_too_and_so_does_none_at_all(cache, attributes):
    (cache / "junit/app.xml").write_text(f"<testsuites><testsuite {attributes}/></testsuites>")
    with pytest.raises(SystemExit):
        figures.print_table()


def test_a_failed_test_is_named_with_what_it_said(cache, capsys):
    (cache / "junit/board-ready.xml").write_text(
        '<testsuites><testsuite tests="1" failures="1"><testcase classname="test_ready" name="test_page">'
        f'<failure message="assert 1 == 2{" x" * 900}">...</failure></testcase></testsuite></testsuites>'
    )
    with pytest.raises(SystemExit):
        figures.print_table()
    *_, named, counted = capsys.readouterr().out.splitlines()
    assert named.startswith("FAILED test_ready::test_page: assert 1 == 2 x")
    assert len(named) < 700
    assert counted == "3 passed, 1 failed, 0 skipped"
