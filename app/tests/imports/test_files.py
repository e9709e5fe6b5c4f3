"""Files, folders, archives and standard input; and archives that are refused before they are read."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest

from export_files import DEEZER_ROWS, EXPORTS, workbook
from music_streaming.imports import files
from music_streaming.imports.files import SourceError, sources


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", compression) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return target.getvalue()


def seen(path: Path | str, stdin: bytes = b"") -> dict[str, str | None]:
    with sources(str(path), io.BytesIO(stdin)) as found:
        return {source.name: source.format.name if source.format else None for source in found}


SPOTIFY = (EXPORTS / "spotify_extended.json").read_bytes()
LINES = (EXPORTS / "listenbrainz.jsonl").read_bytes()


def test_a_zip_is_looked_through_and_one_within_it_too(tmp_path: Path) -> None:
    inner = archive(
        {"Apple Music Activity/Apple Music Play Activity.csv": (EXPORTS / "apple.csv").read_bytes()}
    )
    (tmp_path / "all.zip").write_bytes(
        archive({"a/": b"", "a/Streaming_History_Audio_0.json": SPOTIFY, "listens/2023/3.jsonl": LINES, "user.json": b'{"id": 1}',
                 "deezer.xlsx": workbook(DEEZER_ROWS), "Apple_Media_Services.zip": inner, "empty.json": b""})
    )  # fmt: skip
    wanted = {
        "all.zip/a/Streaming_History_Audio_0.json": "Spotify extended streaming history",
        "all.zip/listens/2023/3.jsonl": "ListenBrainz",
        "all.zip/user.json": None,
        "all.zip/deezer.xlsx": "Deezer",
        "all.zip/Apple_Media_Services.zip/Apple Music Activity/Apple Music Play Activity.csv": "Apple Music play activity",
        "all.zip/empty.json": None,
    }
    assert seen(tmp_path / "all.zip") == wanted
    assert set(seen("-", (tmp_path / "all.zip").read_bytes()).values()) == set(wanted.values())


def test_a_folder_is_walked_without_following_links(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/.scrobbler.log").write_bytes((EXPORTS / "rockbox.log").read_bytes())
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "outside").symlink_to(EXPORTS)
    (tmp_path / "link.json").symlink_to(EXPORTS / "maloja.json")
    os.mkfifo(tmp_path / "pipe.json")
    assert seen(tmp_path) == {"deep/.scrobbler.log": "Rockbox", "notes.txt": None}


def test_a_folder_of_thousands_of_other_files_leaves_none_open(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number}.txt").write_text("no export")
    (tmp_path / "x.jsonl").write_bytes(LINES)
    with sources(str(tmp_path), io.BytesIO()) as found:
        assert len(found) == 301
        assert len(os.listdir("/proc/self/fd")) < 200


@pytest.mark.parametrize("name", ["../../etc/cron.d/x.json", "/etc/x.json", "..\\x.json", "C:/x.json"])
def test_a_name_that_leads_outside_refuses_the_archive(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.zip").write_bytes(archive({"ok.json": SPOTIFY, name: SPOTIFY}))
    with pytest.raises(SourceError, match="leads outside"):
        seen(tmp_path / "a.zip")


def test_what_is_packed_too_tightly_or_is_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "bomb.zip"
    bomb.write_bytes(archive({"x.json": b"[" + b" " * (20 << 20)}))
    with pytest.raises(SourceError, match=r"packed [\d,]+ to 1, wanted at most 200 to 1"):
        seen(bomb)
    within = tmp_path / "within.zip"
    within.write_bytes(archive({"inner.zip": bomb.read_bytes()}))
    with pytest.raises(SourceError, match="to 1"):
        seen(within)
    sheet = tmp_path / "sheet.xlsx"
    sheet.write_bytes(
        archive({"xl/workbook.xml": b"<workbook/>", "xl/worksheets/sheet1.xml": b" " * (20 << 20)})
    )
    with pytest.raises(SourceError, match="to 1"):
        seen(sheet)
    many = tmp_path / "many.zip"
    many.write_bytes(archive({f"{number}.json": b"" for number in range(30)}))
    monkeypatch.setattr(files, "ENTRIES", 29)
    with pytest.raises(SourceError, match="30 entries, wanted at most 29"):
        seen(many)
    monkeypatch.setattr(files, "ENTRIES", 30)
    monkeypatch.setattr(files, "MEMBER_BYTES", 1_000)
    large = tmp_path / "large.zip"
    large.write_bytes(archive({"x.json": SPOTIFY}))
    with pytest.raises(SourceError, match="bytes, wanted at most 1,000"):
        seen(large)


def test_a_link_in_an_archive_is_no_file(tmp_path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as made:
        link = zipfile.ZipInfo("passwd.json")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        made.writestr(link, "/etc/passwd")
        made.writestr("a.jsonl", LINES)
    (tmp_path / "a.zip").write_bytes(target.getvalue())
    assert seen(tmp_path / "a.zip") == {"a.zip/a.jsonl": "ListenBrainz"}


def test_a_damaged_archive_says_so(tmp_path: Path) -> None:
    whole = archive({"a.json": SPOTIFY * 3}, zipfile.ZIP_STORED)
    (tmp_path / "a.zip").write_bytes(
        whole.replace(b"master_metadata_track_name", b"master_metadata_track_nome", 1)
    )
    with pytest.raises(SourceError, match="CRC"):
        seen(tmp_path / "a.zip")


def test_what_is_not_there_says_how_to_get_it_here(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"No such file.*ssh pi@BOARD sudo musicctl import - < FILE"):
        seen(tmp_path / "nothing.zip")
