"""Countries: ISO 3166-1 alpha-2 codes and UN M49 regions, from countries.csv (app/make_countries.py)."""

import csv
from importlib.resources import files
from typing import NamedTuple

UNKNOWN_CODE = "ZZ"
UNKNOWN_REGION = "unknown"


class Country(NamedTuple):
    """code: two capitals; name: short English; region: Africa, Americas, Asia, Europe, Oceania, unknown."""

    code: str
    name: str
    region: str


def _read() -> dict[str, Country]:
    with files("music_streaming").joinpath("countries.csv").open(encoding="utf-8") as file:
        return {row["code"]: Country(**row) for row in csv.DictReader(file)}


COUNTRIES = _read()
REGIONS = tuple(sorted({country.region for country in COUNTRIES.values()} - {UNKNOWN_REGION}))


def region_of(code: str) -> str:
    """The region of a code; `unknown` for ZZ and anything that is no code."""
    country = COUNTRIES.get(code)
    return country.region if country else UNKNOWN_REGION
