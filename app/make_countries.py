# /// script
# requires-python = ">=3.11"
# dependencies = ["country_converter==1.3.2", "pandas<3", "pycountry==26.2.16"]
# ///
"""Prints music_streaming/countries.csv: each ISO 3166-1 code, its short English name and its UN M49 region.

Run on a change of the standard:  uv run app/make_countries.py > app/music_streaming/countries.csv
"""

import country_converter
import pycountry

REGIONS = {"America": "Americas", "Antarctica": "unknown"}
# Islands that the library counts to Antarctica and UN M49 to a region.
ISLANDS = {"BV": "Americas", "GS": "Americas", "HM": "Oceania"}

converter = country_converter.CountryConverter()
print("code,name,region")
for country in sorted(pycountry.countries, key=lambda country: country.alpha_2):
    name, region = (
        converter.convert(country.alpha_2, src="ISO2", to=column) for column in ("name_short", "continent")
    )
    name = f'"{name}"' if "," in name else name
    print(f"{country.alpha_2},{name},{ISLANDS.get(country.alpha_2) or REGIONS.get(region, region)}")
