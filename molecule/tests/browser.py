"""Look at the dashboards as a person on the same network does: a real browser, outside the board."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import TimeoutError, sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from conftest import Board

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic",
]  # fmt: skip
GROWING = "Streams in the last hour"
DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


def look(board: Board, password: str, folder: Path) -> dict[str, Any]:
    """Log in over plain http, open every board, take pictures into `folder`; what was seen, by slug."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [board.script, "outside", sys.executable, __file__, f"http://{board.address}:8088", str(folder)],
        input=password,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


# What a chart has drawn: colours of its canvas, fills of its map's countries, rows of its table, or its big number.
DRAWN = """card => {
  const canvas = card.querySelector('.slice_container canvas');
  if (canvas) {
    const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
    const colours = new Set(new Uint32Array(data.buffer).filter((_, at) => at % 3 === 0));
    return colours.size > 3;
  }
  const countries = [...card.querySelectorAll('.datamaps-subunit')];
  if (countries.length) return new Set(countries.map(country => country.style.fill)).size > 1;
  return card.querySelector('tbody tr') !== null || /\\d/.test(card.querySelector('.header-line')?.innerText ?? '');
}"""
CARDS = "[data-test-chart-name]"


def open_board(page: Page, url: str, slug: str) -> dict[str, Any]:
    """Open one dashboard and wait until it is drawn; its charts, those that show an error or nothing, and those that
    reach over the edge of the window.
    """
    page.goto(f"{url}/superset/dashboard/{slug}/")
    page.wait_for_selector(CARDS, timeout=90_000)
    # Charts below the fold load when they come into view.
    top = 0
    while top < page.evaluate("() => document.scrollingElement.scrollHeight"):
        page.evaluate("top => document.scrollingElement.scrollTo(0, top)", top)
        page.wait_for_timeout(150)
        top += 400
    page.evaluate("() => document.scrollingElement.scrollTo(0, 0)")
    with contextlib.suppress(TimeoutError):
        page.wait_for_function(
            f"() => [...document.querySelectorAll('{CARDS}')].every({DRAWN})", timeout=60_000
        )
    charts = page.eval_on_selector_all(
        CARDS, f"cards => cards.map(card => [card.dataset.testChartName, card.innerText, ({DRAWN})(card)])"
    )
    wrong = [
        [name, text[:200]]
        for name, text, drawn in charts
        if not drawn or re.search(r"error|no results|no data", text, re.IGNORECASE)
    ]
    over = page.eval_on_selector_all(
        CARDS,
        "cards => cards.filter(card => card.getBoundingClientRect().right > innerWidth)"
        ".map(card => card.dataset.testChartName)",
    )
    if page.evaluate("() => document.scrollingElement.scrollWidth > innerWidth"):
        over.append("the page itself")
    return {"charts": [name for name, _, _ in charts], "wrong": wrong, "over": over}


def settle(page: Page) -> None:
    """Wait until the page moves no more: charts grow into place, and some refresh every 10 s."""
    before = b""
    for _ in range(20):
        now = page.screenshot(full_page=True)
        if now == before:
            return
        before = now
        page.wait_for_timeout(700)


def number(page: Page) -> int:
    """The growing number on Live, as it is shown."""
    text = page.inner_text(f"[data-test-chart-name='{GROWING}'] .header-line")
    return int(re.sub(r"\D", "", text))


def main(url: str, folder: Path, password: str) -> dict[str, Any]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        page = browser.new_page(viewport=DESKTOP)
        foreign: list[str] = []
        # Finished, for Chromium also tells of those that the content security policy forbids it to make.
        page.on(
            "requestfinished",
            lambda request: (
                None if request.url.startswith((url, "data:", "blob:")) else foreign.append(request.url)
            ),
        )
        page.goto(f"{url}/login/", wait_until="networkidle")
        page.fill("#username", "admin")
        page.fill("#password", password)
        page.press("#password", "Enter")
        page.wait_for_url(lambda address: "/login" not in address, timeout=60_000)
        home = page.url
        slugs = [
            board["slug"]
            for board in page.request.get(f"{url}/api/v1/dashboard/").json()["result"]
            if (board["slug"] or "").startswith("music-")
        ]
        boards = {}
        phone = browser.new_context(viewport=PHONE, storage_state=page.context.storage_state()).new_page()
        for slug in sorted(slugs):
            for screen, kind in ((page, ""), (phone, "-phone")):
                boards[slug + kind] = open_board(screen, url, slug)
                # For the README.
                if screen is page:
                    settle(page)
                screen.screenshot(path=str(folder / f"{slug}{kind}.png"), full_page=True)
        phone.close()
        open_board(page, url, "music-live")
        earlier = number(page)
        # The board refreshes itself.
        page.wait_for_function(
            "([name, shown]) => +document.querySelector(`[data-test-chart-name='${name}'] .header-line`)"
            ".innerText.replace(/\\D/g, '') !== shown",
            arg=[GROWING, earlier],
            timeout=60_000,
        )
        later = number(page)
        browser.close()
    return {"home": home, "boards": boards, "foreign": foreign, "earlier": earlier, "later": later}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), sys.stdin.read())))
