"""Other scrobble services that plays are passed on to, each by its own API.

ListenBrainz (https://listenbrainz.readthedocs.io/en/latest/users/api/core.html), which Maloja speaks as well
below /apis/listenbrainz, and Last.fm (https://www.last.fm/api/show/track.scrobble).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from music_streaming.event import UNKNOWN
from music_streaming.settings import WebAddress

TIMEOUT_SECONDS = 30.0
CLIENT = "music-streaming"
MOST = {"listenbrainz": 100, "lastfm": 50, "maloja": 100}
"""Plays in one request."""

# Last.fm's errors of a play that it will never take; after all others it is asked again.
_LASTFM_NEVER = {6, 7}
_ADDRESSES = {
    "listenbrainz": "https://api.listenbrainz.org",
    "lastfm": "https://ws.audioscrobbler.com/2.0/",
    "maloja": "",
}

Play = dict[str, Any]


class AwayError(Exception):
    """It takes nothing now: away, busy, or the token is nobody's. seconds: it wants to be left alone."""

    def __init__(self, message: str, seconds: float = 0) -> None:
        super().__init__(message)
        self.seconds = seconds


class NeverError(Exception):
    """It will never take this, however often it is sent."""


class Destination(BaseModel):
    """Where the plays of one listener go on to.

    token: of the account there; for Last.fm the session key, with the API key and secret of an API account.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    listener: Annotated[str, Field(min_length=1)]
    service: Literal["listenbrainz", "lastfm", "maloja"]
    token: Annotated[SecretStr, Field(min_length=1)]
    url: WebAddress | Literal[""] = ""
    api_key: SecretStr = SecretStr("")
    api_secret: SecretStr = SecretStr("")

    @model_validator(mode="after")
    def _complete(self) -> Destination:
        if self.service == "maloja" and not self.url:
            raise ValueError("wanted the url of Maloja, such as http://192.0.2.7:42010")
        if self.service == "lastfm" and not (
            self.api_key.get_secret_value() and self.api_secret.get_secret_value()
        ):
            raise ValueError("wanted api_key and api_secret of https://www.last.fm/api/account/create")
        return self

    @property
    def address(self) -> str:
        """Of the API, without a slash at the end of ListenBrainz's."""
        found = self.url or _ADDRESSES[self.service]
        if self.service == "lastfm":
            return found
        return found.rstrip("/") + ("/apis/listenbrainz" if self.service == "maloja" else "")

    @property
    def name(self) -> str:
        """For logs: whose plays go where."""
        return f"{self.listener} to {self.service}"

    @property
    def group(self) -> str:
        """The consumer group in which Kafka keeps how far it is; another account there is the same one."""
        mark = hashlib.sha256("\x1f".join((self.listener, self.service, self.address)).encode()).hexdigest()
        return f"music-forward-{mark[:12]}"


def send(client: httpx.Client, destination: Destination, plays: Sequence[Play]) -> None:
    """Deliver plays (event.parse_event), MOST at once; NeverError or AwayError where it did not take all."""
    try:
        if destination.service == "lastfm":
            _lastfm(client, destination, plays)
        else:
            _listenbrainz(client, destination, plays)
    except httpx.TransportError as error:
        raise AwayError(f"{type(error).__name__}: {error}") from None


def _listenbrainz(client: httpx.Client, destination: Destination, plays: Sequence[Play]) -> None:
    body = {
        "listen_type": "single" if len(plays) == 1 else "import",
        "payload": [_listen(play) for play in plays],
    }
    token = destination.token.get_secret_value()
    answer = client.post(
        f"{destination.address}/1/submit-listens", json=body, headers={"Authorization": f"Token {token}"}
    )
    if answer.is_success:
        return
    said = f"{answer.status_code} {answer.text[:300]}"
    if answer.status_code in (400, 413):
        raise NeverError(said)
    raise AwayError(said, _seconds(answer, "X-RateLimit-Reset-In"))


def _listen(play: Play) -> dict[str, Any]:
    more = {"submission_client": CLIENT}
    if play["player"] != UNKNOWN:
        more["media_player"] = play["player"]
    if play["duration_ms"]:
        more["duration_ms"] = play["duration_ms"]
    metadata = {"artist_name": play["artist"], "track_name": play["title"], "additional_info": more}
    if play["album"]:
        metadata["release_name"] = play["album"]
    return {"listened_at": int(play["event_time"].timestamp()), "track_metadata": metadata}


def _lastfm(client: httpx.Client, destination: Destination, plays: Sequence[Play]) -> None:
    fields = {
        "method": "track.scrobble",
        "api_key": destination.api_key.get_secret_value(),
        "sk": destination.token.get_secret_value(),
    }
    for number, play in enumerate(plays):
        fields |= {
            f"artist[{number}]": play["artist"],
            f"track[{number}]": play["title"],
            f"timestamp[{number}]": str(int(play["event_time"].timestamp())),
        }
        if play["album"]:
            fields[f"album[{number}]"] = play["album"]
        if play["duration_ms"]:
            fields[f"duration[{number}]"] = str(max(1, play["duration_ms"] // 1000))
    answer = client.post(destination.address, data=signed(fields, destination.api_secret.get_secret_value()))
    try:
        document = answer.json()
    except ValueError:
        document = {}
    if not isinstance(document, dict) or (not answer.is_success and "error" not in document):
        raise AwayError(f"{answer.status_code} {answer.text[:300]}", _seconds(answer, "Retry-After"))
    if "error" in document:
        said = f"error {document['error']}: {document.get('message')}"
        raise NeverError(said) if document["error"] in _LASTFM_NEVER else AwayError(said)


def signed(fields: dict[str, str], secret: str) -> dict[str, str]:
    """The fields with their signature (https://www.last.fm/api/authspec), and the wish for JSON."""
    text = "".join(name + fields[name] for name in sorted(fields)) + secret
    return fields | {
        "api_sig": hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
        "format": "json",
    }


def _seconds(answer: httpx.Response, header: str) -> float:
    try:
        return min(3_600.0, max(0.0, float(answer.headers.get(header, 0))))
    except ValueError:
        return 0
