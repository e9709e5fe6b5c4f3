"""Superset's REST interface, as far as the shipped dashboards need it.

Login gives a token; the CSRF token has to be fetched in the same session, whose cookie then counts too.
Superset answers a call that lacks one of the three with a redirect to the login page, which a client that
follows it takes for success: so redirects are errors here.
"""

from __future__ import annotations

import io
import json
import zipfile
from functools import cached_property
from http import HTTPStatus
from typing import Any, Self

import httpx
import yaml

from music_streaming.error import MusicError
from music_streaming.settings import Settings

ACCOUNT = "appliance"
"""The account that imports; the start-up step of the Superset image makes it, so people may change theirs."""

TIMEOUT_SECONDS = 60
PAGE_SIZE = 100
NAMES = {
    "chart": ["slice_name"],
    "dashboard": ["dashboard_title", "slug"],
    "database": ["database_name"],
    "dataset": ["table_name", "database.uuid"],
}


class SupersetError(MusicError):
    """Superset cannot be reached or refuses; the text says what was found, wanted, and the remedy."""


class Superset:
    """A session of one account. Use as a context manager: it logs in on entry."""

    def __init__(self, url: str, user: str, password: str, *, https: bool = False) -> None:
        """`https`: Superset stands behind a proxy that speaks https; ask at `url` as that proxy would."""
        self.url = url.rstrip("/")
        self.user = user
        self._password = password
        self._http = httpx.Client(base_url=self.url, timeout=TIMEOUT_SECONDS, follow_redirects=False)
        self._referer = self.url
        if https:
            self._http.headers["X-Forwarded-Proto"] = "https"
            self._referer = self.url.replace("http://", "https://", 1)
            # The session's cookie is marked Secure, but the way from the proxy is plain http.
            self._http.event_hooks = {"response": [lambda _: self._unmark_cookies()]}

    def _unmark_cookies(self) -> None:
        for cookie in self._http.cookies.jar:
            cookie.secure = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The board's Superset with the appliance's account; its password is the secret
        ``superset_appliance``.
        """
        password = settings.secret("superset_appliance").get_secret_value()
        return cls(settings.superset.url, ACCOUNT, password, https=settings.superset.https)

    def __enter__(self) -> Self:
        answer = self._ask(
            "POST",
            "/api/v1/security/login",
            json={"username": self.user, "password": self._password, "provider": "db"},
        )
        self._http.headers["Authorization"] = f"Bearer {answer['access_token']}"
        self._http.headers["X-CSRFToken"] = self._ask("GET", "/api/v1/security/csrf_token/")["result"]
        self._http.headers["Referer"] = self._referer
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, query: Any = None) -> dict[str, Any]:
        """The JSON answer of ``/api/v1/<path>``; `query` is the q parameter, a value that JSON can carry."""
        return self._ask("GET", f"/api/v1/{path}", params=_q(query))

    def find(self, resource: str, *filters: tuple[str, str, Any]) -> list[dict[str, Any]]:
        """Every object of `resource` (chart, dashboard, dataset, database) that all filters let through.

        filters: column, operator (eq, sw, rel_o_m ...), value. Each object has id, uuid and its name, a
        dataset also its database.
        """
        found: list[dict[str, Any]] = []
        while True:
            page = self.get(
                f"{resource}/",
                {
                    "columns": ["id", "uuid", *NAMES[resource]],
                    "filters": [
                        {"col": column, "opr": operator, "value": value}
                        for column, operator, value in filters
                    ],
                    "order_column": "changed_on_delta_humanized",
                    "page": len(found) // PAGE_SIZE,
                    "page_size": PAGE_SIZE,
                },
            )["result"]
            found += page
            if len(page) < PAGE_SIZE:
                return found

    def made_here(self, resource: str) -> list[dict[str, Any]]:
        """The objects of `resource` that this account made."""
        return self.find(resource, ("created_by", "rel_o_m", self._account_id))

    @cached_property
    def _account_id(self) -> int:
        return int(self.get("me/")["result"]["id"])

    def delete(self, resource: str, ids: list[int]) -> None:
        """Remove objects by id; an empty list asks nothing."""
        if ids:
            self._ask("DELETE", f"/api/v1/{resource}/", params=_q(ids))

    def change(self, resource: str, identifier: int, values: dict[str, Any]) -> None:
        """Set fields of one object, as an edit in the web interface would."""
        self._ask("PUT", f"/api/v1/{resource}/{identifier}", json=values)

    def create(self, resource: str, values: dict[str, Any]) -> int:
        """Make an object; its id."""
        return int(self._ask("POST", f"/api/v1/{resource}/", json=values)["id"])

    def import_assets(self, bundle: bytes, passwords: dict[str, str]) -> None:
        """Import a ZIP over everything of the same uuid. One transaction: a failure changes nothing.

        passwords: path of the database's file in the ZIP -> its password, needed on every import.
        """
        answer = self._ask(
            "POST",
            "/api/v1/assets/import/",
            files={"bundle": ("bundle.zip", bundle, "application/zip")},
            data={"passwords": json.dumps(passwords)},
        )
        if answer.get("message") != "OK":
            raise SupersetError(
                f"Superset's import answered {answer}, wanted the message OK. "
                "Remedy: journalctl -u music-superset says why."
            )

    def export_dashboards(self, ids: list[int]) -> dict[str, dict[str, Any]]:
        """Dashboards with their charts, datasets and database: path in the export -> content."""
        response = self._send("GET", "/api/v1/dashboard/export/", params=_q(ids))
        with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
            return {
                name.partition("/")[2]: read_yaml(archive.read(name))
                for name in archive.namelist()
                if not name.endswith("metadata.yaml")
            }

    def chart_data(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows that one chart query gives, past every cache; raises SupersetError with Superset's
        reason.
        """
        return list(self.chart_result(query | {"force": True})["data"])

    def chart_result(self, query: dict[str, Any]) -> dict[str, Any]:
        """As chart_data, through the cache like a page that refreshes; with `cached_dttm` beside `data`."""
        result: dict[str, Any] = self._ask("POST", "/api/v1/chart/data", json=query)["result"][0]
        if result.get("error"):
            raise SupersetError(f"Superset could not answer a chart's query: {result['error']}")
        return result

    def _ask(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        response = self._send(method, path, **arguments)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise SupersetError(
                f"Superset answered {method} {path} with {response.headers.get('content-type')}, wanted "
                f"JSON. Remedy: make sure that {self.url} is Superset ([superset] url in the settings)."
            )
        return answer

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise SupersetError(
                f"Superset at {self.url} does not answer ({error}), wanted its web server. "
                "Remedy: systemctl status music-superset"
            ) from None
        if response.status_code == HTTPStatus.UNAUTHORIZED:
            raise SupersetError(
                f"Superset refuses the account {self.user}, wanted the password in the secret "
                f"superset_{self.user}. Remedy: systemctl restart music-superset sets it again."
            )
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            raise SupersetError(
                f"Superset refuses more logins as {self.user} for now: too many failed. Remedy: wait a "
                "minute."
            )
        if response.is_redirect:
            raise SupersetError(
                f"Superset sent {method} {path} to {response.headers['location']}, wanted an answer: the "
                "session has no CSRF token, or https is wanted. Remedy: check [superset] url in the settings."
            )
        if response.is_error:
            raise SupersetError(
                f"Superset answered {method} {path} with {response.status_code}: {_reason(response)}. "
                "Remedy: journalctl -u music-superset says more."
            )
        return response


def read_yaml(text: str | bytes) -> Any:
    """Plain data from YAML, by the parser in C where there is one: a bundle is some 200 kB."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506  both are safe


def _q(value: Any) -> dict[str, str] | None:
    return None if value is None else {"q": json.dumps(value)}


def _reason(response: httpx.Response) -> str:
    try:
        answer = response.json()
    except ValueError:
        return response.text[:300]
    if "errors" in answer:
        return "; ".join(str(error.get("message", error)) for error in answer["errors"])
    return str(answer.get("message", answer))[:600]
