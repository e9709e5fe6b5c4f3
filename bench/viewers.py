"""How old the numbers get that people see while many look at "Live" at once, and what that costs Superset.

Each viewer asks for every chart of the board through the cache, as a page does that refreshes itself, with
six connections like a browser. A number's age, at the moment before the next refresh replaces it, is the age
of the newest play when it was computed plus the time since then. Run it on the board itself:

    sudo /opt/music/app/bin/python - --minutes 10 < bench/viewers.py
"""

from __future__ import annotations

import datetime as dt
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from music_streaming.dashboards.bundle import HOME_SLUG, load, resolve, shown_charts
from music_streaming.dashboards.chart import chart_query
from music_streaming.dashboards.superset import Superset
from music_streaming.dashboards.sync import dataset_ids
from music_streaming.settings import Settings

CONNECTIONS = 6
# The chart that tells the age of the newest play, in ms.
AGE = "newest_play_age"
UNIT = "music-superset"


@dataclass
class Viewer:
    """What one viewer has seen: ages in s of what was replaced, and how long each refresh took in s."""

    ages: list[float] = field(default_factory=list)
    refreshes: list[float] = field(default_factory=list)
    computed_at: float = 0
    age_then: float = 0

    def see(self, result: dict[str, Any]) -> None:
        """Take in a new answer of the chart AGE."""
        now = time.time()
        if self.computed_at:
            self.ages.append(now - self.computed_at + self.age_then)
        cached = result["cached_dttm"]
        self.computed_at = (
            dt.datetime.fromisoformat(cached).replace(tzinfo=dt.UTC).timestamp() if cached else now
        )
        (row,) = result["data"]
        self.age_then = float(next(iter(row.values()))) / 1000


def queries(settings: Settings, superset: Superset) -> tuple[dict[str, dict[str, Any]], float]:
    """The query of each chart of the home page, with the board's time range; its refresh period in s."""
    bundle = resolve(load(settings.paths.files / "dashboards"), settings)
    board = next(b for b in bundle.of("dashboards").values() if b["slug"] == HOME_SLUG)
    (span,) = (
        item["defaultDataMask"]["filterState"]["value"]
        for item in board["metadata"]["native_filter_configuration"]
        if item["filterType"] == "filter_time"
    )
    ids, shown = dataset_ids(superset, bundle), set(shown_charts(board))
    asked = {}
    for path, chart in bundle.of("charts").items():
        if chart["uuid"] not in shown:
            continue
        filters = [
            {"col": item["subject"], "op": "TEMPORAL_RANGE", "val": span}
            for item in chart["params"].get("adhoc_filters") or []
            if item.get("operator") == "TEMPORAL_RANGE"
        ]
        asked[path] = chart_query(chart, ids[chart["dataset_uuid"]], filters=filters)
    return asked, float(board["metadata"]["refresh_frequency"])


def state() -> tuple[float, str]:
    """Memory of Superset's web server, as PSS in MB, and its process ids."""
    listed = ["docker", "top", UNIT, "-eo", "pid,args"]
    out = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    pids = [line.split()[0] for line in out.splitlines() if "gunicorn" in line]
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii") for pid in pids]
    kib = sum(
        int(line.split()[1]) for text in rollups for line in text.splitlines() if line.startswith("Pss:")
    )
    return kib * 1024 / 1e6, " ".join(pids)


@click.command()
@click.option("--viewers", default=20, show_default=True)
@click.option("--minutes", default=10.0, show_default=True)
def main(viewers: int, minutes: float) -> None:
    """Let VIEWERS look for MINUTES and print what they saw."""
    settings = Settings.load()
    before = state()
    with Superset.of(settings) as superset, ThreadPoolExecutor(viewers * CONNECTIONS) as pool:
        asked, period = queries(settings, superset)
        watching = [Viewer() for _ in range(viewers)]
        started = time.monotonic()

        def refresh(viewer: Viewer) -> None:
            begun = time.monotonic()
            answers = pool.map(superset.chart_result, asked.values())
            for path, answer in zip(asked, answers, strict=True):
                if path.endswith(AGE + ".yaml"):
                    viewer.see(answer)
            viewer.refreshes.append(time.monotonic() - begun)

        def watch(number: int) -> None:
            # People come at any moment of the period.
            due = started + period * number / viewers
            while due < started + minutes * 60:
                time.sleep(max(0.0, due - time.monotonic()))
                refresh(watching[number])
                due += period

        with ThreadPoolExecutor(viewers) as people:
            list(people.map(watch, range(viewers)))
    after = state()
    ages = np.array([age for viewer in watching for age in viewer.ages])
    spent = np.array([seconds for viewer in watching for seconds in viewer.refreshes])
    click.echo(
        f"{viewers} viewers, {len(asked)} charts each every {period:.0f} s, {minutes:g} min: "
        f"{len(spent)} refreshes\n"
        f"age of the numbers seen: median {np.median(ages):.1f} s, p99 {np.percentile(ages, 99):.1f} s, "
        f"most {ages.max():.1f} s (wanted: at most 15 s)\n"
        f"a refresh of all charts: median {np.median(spent):.2f} s, p99 {np.percentile(spent, 99):.2f} s\n"
        f"memory of Superset: {before[0]:.0f} MB before, {after[0]:.0f} MB after\n"
        f"its processes: {before[1]} before, {after[1]} after"
    )


if __name__ == "__main__":
    main()
