"""The query of a chart says what the chart says."""

import pytest

from music_streaming.dashboards.bundle import (
    Bundle,
    load,
)
from music_streaming.dashboards.chart import chart_query
from music_streaming.testing import FILES

FOLDER = FILES / "dashboards"


@pytest.fixture(scope="session")
def shipped() -> Bundle:
    return load(FOLDER)


def test_every_chart_has_a_query(shipped: Bundle) -> None:
    for path, chart in shipped.of("charts").items():
        query = chart_query(chart, 7)["queries"][0]
        assert query["columns"] or query["metrics"], path


def test_query_says_what_the_chart_says() -> None:
    params = {
        "viz_type": "echarts_timeseries_bar",
        "x_axis": "window_start",
        "time_grain_sqla": "PT1H",
        "groupby": ["genre"],
        "metrics": ["streams"],
        "row_limit": 50,
        "adhoc_filters": [
            {
                "expressionType": "SIMPLE",
                "clause": "WHERE",
                "subject": "genre",
                "operator": "IN",
                "comparator": ["pop"],
            },
            {"expressionType": "SQL", "clause": "WHERE", "sqlExpression": "a > 1"},
            {"expressionType": "SQL", "clause": "HAVING", "sqlExpression": "SUM(b) > 2"},
        ],
    }
    chosen = [{"col": "genre", "op": "IN", "val": ["rock"]}]
    body = chart_query({"params": params}, 7)
    query = body["queries"][0]
    assert body["datasource"] == {"id": 7, "type": "table"}
    assert [c if isinstance(c, str) else c["timeGrain"] for c in query["columns"]] == ["PT1H", "genre"]
    assert query["metrics"] == ["streams"]
    assert query["filters"] == [{"col": "genre", "op": "IN", "val": ["pop"]}]
    assert query["extras"] == {"where": "(a > 1)", "having": "(SUM(b) > 2)"}
    assert query["row_limit"] == 50
    # A dashboard's filter on the same column takes the chart's place, as in the browser.
    assert chart_query({"params": params}, 7, filters=chosen)["queries"][0]["filters"] == chosen
