"""Exports for the tests, in the shape that their writers document; made for them, of invented people and songs."""

from __future__ import annotations

import io
from datetime import datetime
from pathlib import Path

import openpyxl

EXPORTS = Path(__file__).parent / "imports/exports"


def workbook(rows: list[tuple], title: str = "10_listeningHistory") -> bytes:
    """A Deezer export: more than one sheet, of which one has the history."""
    book = openpyxl.Workbook()
    book.active.title = "01_account"
    book.active.append(["Name", "Value"])
    sheet = book.create_sheet(title)
    for row in rows:
        sheet.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


DEEZER = (
    "Song Title", "Artist", "ISRC", "Album Title", "IP Address",
    "Listening Time", "Platform Name", "Platform Model", "Date",
)  # fmt: skip
DEEZER_ROWS = [
    DEEZER,
    (
        "Harbour Lights",
        "The Paper Lanterns",
        "XX0000000001",
        "Low Tide",
        "192.0.2.7",
        200,
        "Android",
        "",
        "2023-03-01 08:00:00",
    ),
    (
        1999,
        "東雲カルテット",
        "XX0000000002",
        "",
        "192.0.2.7",
        4,
        "web_player",
        "",
        datetime(2023, 3, 1, 8, 3, 24),
    ),
    ("Dateless", "東雲カルテット", "", "", "192.0.2.7", 4, "", "", None),
]
