"""The ListenBrainz API below /1/; source: https://listenbrainz.readthedocs.io/en/latest/users/api/."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from music_streaming.event import song_id
from music_streaming.scrobble import stats, store
from music_streaming.scrobble.directory import Player
from music_streaming.scrobble.plays import RefusedError
from music_streaming.scrobble.submission import BODY_BYTES, is_uuid, json_object, parse_submission
from music_streaming.scrobble.web import body, context, note, or_unavailable

MOST_LISTENS, SOME_LISTENS = 1_000, 25
SMALL_BODY = 65_536
OK = {"status": "ok"}


async def _player(request: Request) -> Player:
    """Whose token the request carries; RefusedError (401) where it is nobody's."""
    header = request.headers.get("authorization", "")
    scheme, _, token = header.strip().partition(" ")
    if not header:
        raise RefusedError("Authorization: found no such header, wanted: Token <the player's token>", 401)
    if scheme.lower() not in ("token", "bearer") or not token.strip():
        raise RefusedError("Authorization: found another form, wanted: Token <the player's token>", 401)
    found = await or_unavailable(context(request).directory.by_token(token), "Authorization")
    if found is None:
        raise RefusedError(
            "Authorization: found a token that is nobody's or revoked, wanted one that "
            "`musicctl listener add` has shown",
            401,
        )
    request.state.listener = found.listener.name
    return found


async def _own(request: Request) -> str:
    """The listener of the path, who must be the token's: nobody reads what another one hears."""
    name, player = request.path_params["name"], await _player(request)
    if name.lower() != player.listener.name.lower():
        raise RefusedError(f"Token: found that of another listener, wanted that of {name:.64}", 403)
    return player.listener.name


def _number(request: Request, name: str, default: int | None = None, most: int | None = None) -> int | None:
    sent = request.query_params.get(name)
    if not sent:
        return default
    try:
        found = int(sent)
    except ValueError:
        found = -1
    if not 0 <= found < 2**40:
        raise RefusedError(f"{name}: found {sent!r:.40}, wanted a whole number of 0 or more")
    return found if most is None else min(found, most)


def _page(request: Request, most: int = stats.MOST) -> tuple[int, int]:
    return _number(request, "count", SOME_LISTENS, most) or 0, _number(request, "offset", 0) or 0


async def submit(request: Request) -> Response:
    """Take listens: 200 once Kafka has them all, 503 where it has not."""
    player = await _player(request)
    submission = parse_submission(await body(request, BODY_BYTES), store.utc_now())
    parts = context(request)
    if submission.playing is not None:
        heard = submission.playing
        await or_unavailable(parts.set_playing(player, heard), "playing_now")
        note(request, f"ok: now playing {heard.artist} - {heard.title}", player.listener.name)
        wants_id = request.query_params.get("return_msid", "").lower() not in ("", "0", "false")
        return JSONResponse(OK | ({"recording_msid": song_id(heard.artist, heard.title)} if wants_id else {}))
    await or_unavailable(parts.send(player, submission.plays), "submit-listens")
    last = submission.plays[-1]
    note(request, f"ok: {len(submission.plays)} listens, {last.artist} - {last.title}", player.listener.name)
    return JSONResponse(OK)


async def validate_token(request: Request) -> Response:
    """Whose token this is: 200 with valid false for one that is nobody's."""
    scheme, _, token = request.headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() not in ("token", "bearer"):
        token = request.query_params.get("token", "")
    if not token.strip():
        raise RefusedError("Authorization: found no token, wanted: Token <the player's token>")
    player = await or_unavailable(context(request).directory.by_token(token), "validate-token")
    if player is None:
        note(request, "token invalid: it is nobody's or revoked")
        return JSONResponse({"code": 200, "message": "Token invalid.", "valid": False})
    name = player.listener.name
    note(request, "ok: token valid", name)
    return JSONResponse({"code": 200, "message": "Token valid.", "valid": True, "user_name": name})


async def listens(request: Request) -> Response:
    """Plays of the listener, newest first."""
    name = await _own(request)
    after, before = _number(request, "min_ts"), _number(request, "max_ts")
    if after is not None and before is not None and before <= after:
        raise RefusedError("max_ts: found no later time than min_ts, wanted one")
    count = _number(request, "count", SOME_LISTENS, MOST_LISTENS) or 0

    def ask(cursor: Any) -> Response:
        found = store.listens(cursor, name, after=after, before=before, count=count)
        _, oldest, newest = store.span_of_listens(cursor, name)
        payload = {"count": len(found), "listens": found, "user_id": name}
        return JSONResponse({"payload": payload | {"latest_listen_ts": newest, "oldest_listen_ts": oldest}})

    return await or_unavailable(context(request).database.run(ask), "listens")


async def listen_count(request: Request) -> Response:
    """How many plays the listener has."""
    name = await _own(request)
    run = context(request).database.run(lambda cursor: store.span_of_listens(cursor, name))
    count, _, _ = await or_unavailable(run, "listen-count")
    return JSONResponse({"payload": {"count": count}})


async def playing_now(request: Request) -> Response:
    """What the listener hears now."""
    name = await _own(request)
    found = await or_unavailable(
        context(request).database.run(lambda cursor: store.playing(cursor, name)), "playing-now"
    )
    shown = [{key: one for key, one in found.items() if key != "client"}] if found else []
    payload = {"count": len(shown), "user_id": name, "playing_now": True, "listens": shown}
    return JSONResponse({"payload": payload})


async def delete_playing_now(request: Request) -> Response:
    """Forget what plays now, if the client that is named (or any) has said so."""
    player = await _player(request)
    sent = await body(request, SMALL_BODY)
    client = json_object(sent).get("client") if sent else None
    if client is not None and not isinstance(client, str):
        raise RefusedError("client: found no text, wanted the name of a client")

    def ask(cursor: Any) -> bool:
        found = store.playing(cursor, player.listener.name)
        if found and client and found["client"] not in (None, client):
            raise RefusedError(f"client: found nothing that {client:.64} has said to play", 404)
        store.stop_playing(cursor, player.listener.name)
        return found is not None

    there = await or_unavailable(context(request).database.run(ask), "playing-now")
    if (playing := context(request).playing) is not None:
        playing.stops(player, store.utc_now())
    return JSONResponse(OK | {"message": "Playing now is cleared" if there else "Nothing was playing"})


async def delete_listen(request: Request) -> Response:
    """Take a play out again, from the tables and from every metric."""
    player, sent = await _player(request), json_object(await body(request, SMALL_BODY))
    at, song = sent.get("listened_at"), sent.get("recording_msid")
    if isinstance(at, bool) or not isinstance(at, int) or not 0 <= at < 2**40:
        raise RefusedError("listened_at: found no Unix seconds, wanted those of the play")
    if not is_uuid(song):
        raise RefusedError("recording_msid: found no UUID, wanted that of the play")
    name = player.listener.name
    removed = await or_unavailable(
        context(request).database.run(
            lambda cursor: store.remove_listen(cursor, name, at, str(song).lower())
        ),
        "delete-listen",
    )
    if not removed:
        raise RefusedError("delete-listen: found no such play, wanted one that listens shows", 404)
    return JSONResponse(OK)


async def latest_import(request: Request) -> Response:
    """How far a client has got with a service; clients ask for it without a token."""
    if request.method == "GET":
        name = request.query_params.get("user_name", "")
        service = request.query_params.get("service", "lastfm")
        reached = await or_unavailable(
            context(request).database.run(lambda cursor: store.latest_import(cursor, name, service)),
            "latest-import",
        )
        return JSONResponse({"musicbrainz_id": name, "latest_import": reached, "status": None, "error": None})
    player, sent = await _player(request), json_object(await body(request, SMALL_BODY))
    newest, service = sent.get("ts"), sent.get("service", "lastfm")
    if isinstance(newest, bool) or not isinstance(newest, int) or not 0 <= newest < 2**40:
        raise RefusedError("ts: found no Unix seconds, wanted a whole number")
    if not isinstance(service, str) or not 0 < len(service) <= 64 or "\0" in service:
        raise RefusedError("service: found no name, wanted one such as lastfm")
    name = player.listener.name
    await or_unavailable(
        context(request).database.run(lambda cursor: store.set_latest_import(cursor, name, service, newest)),
        "latest-import",
    )
    return JSONResponse(OK)


async def set_feedback(request: Request) -> Response:
    """Love (1), hate (-1) or neither (0) for a recording."""
    player, sent = await _player(request), json_object(await body(request, SMALL_BODY))
    score, mbid, msid = sent.get("score"), sent.get("recording_mbid"), sent.get("recording_msid")
    if score not in (-1, 0, 1) or isinstance(score, bool):
        raise RefusedError(f"score: found {score!r:.40}, wanted 1 (love), -1 (hate) or 0 (neither)")
    for name, one in (("recording_mbid", mbid), ("recording_msid", msid)):
        if one is not None and not is_uuid(one):
            raise RefusedError(f"{name}: found {one!r:.60}, wanted a UUID")
    song = msid or mbid
    if song is None:
        raise RefusedError("recording_msid: found neither it nor recording_mbid, wanted one of them")

    def ask(cursor: Any) -> None:
        store.set_feedback(
            cursor, player.listener.name, str(song).lower(), int(score), title=None, artist=None, mbid=mbid
        )

    await or_unavailable(context(request).database.run(ask), "feedback")
    return JSONResponse(OK)


async def get_feedback(request: Request) -> Response:
    """Songs that the listener loves or hates."""
    name, (count, offset) = await _own(request), _page(request)
    asked = request.query_params.get("score")
    if asked not in (None, "1", "-1"):
        raise RefusedError(f"score: found {asked!r:.40}, wanted 1 or -1")
    score = int(asked) if asked else None
    run = context(request).database.run(
        lambda cursor: store.feedback(cursor, name, score=score, count=count, offset=offset)
    )
    total, page = await or_unavailable(run, "feedback")
    return JSONResponse({"feedback": page, "count": len(page), "total_count": total, "offset": offset})


async def lookup(_request: Request) -> Response:
    """Nothing: no catalogue is asked, and nothing leaves the board. Clients take that for an unknown song."""
    return JSONResponse({})


def _span(request: Request, first: int) -> stats.Span:
    zone = context(request).settings.display_time_zone
    now = stats.local_now(zone, store.utc_now())
    begun = stats.local_now(zone, datetime.fromtimestamp(first, UTC)) if first else None
    return stats.span_of(request.query_params.get("range") or "all_time", now, begun)


def _told(span: stats.Span, name: str | None) -> dict[str, Any]:
    told = {
        "range": span.name,
        "from_ts": int(span.since.timestamp()),
        "to_ts": int(span.until.timestamp()),
        "last_updated": int(store.utc_now().timestamp()),
    }
    return told | ({"user_id": name} if name else {})


async def user_stats(request: Request) -> Response:
    """The listener's artists, releases or recordings, the most played first; 204 where nothing was played."""
    name, entity, (count, offset) = await _own(request), request.path_params["entity"], _page(request)
    if entity not in stats.ENTITIES:
        raise RefusedError(f"stats: found {entity!r:.40}, wanted one of {', '.join(stats.ENTITIES)}", 404)

    def ask(cursor: Any) -> Response:
        _, first, _ = store.span_of_listens(cursor, name)
        span = _span(request, first)
        total, page = stats.top(cursor, name, entity, span, count=count, offset=offset)
        if not total and not offset:
            return Response(status_code=204)
        known = {entity: page, "count": len(page), "offset": offset, f"total_{entity[:-1]}_count": total}
        return JSONResponse({"payload": known | _told(span, name)})

    return await or_unavailable(context(request).database.run(ask), "stats")


async def user_activity(request: Request) -> Response:
    """How much the listener heard when: by parts of the span, or by weekday and hour."""
    name, daily = await _own(request), request.url.path.endswith("daily-activity")

    def ask(cursor: Any) -> Response:
        count, first, _ = store.span_of_listens(cursor, name)
        if not count:
            return Response(status_code=204)
        span = _span(request, first)
        if daily:
            found: dict[str, Any] = {"daily_activity": stats.daily_activity(cursor, name, span)}
        else:
            found = {"listening_activity": stats.listening_activity(cursor, name, span)}
        return JSONResponse({"payload": found | _told(span, name)})

    return await or_unavailable(context(request).database.run(ask), "stats")


async def household_stats(request: Request) -> Response:
    """The same of all listeners together, from the metric tables; any listener's token opens it."""
    await _player(request)
    entity, (count, offset) = request.path_params["entity"], _page(request)
    if entity not in ("artists", "recordings", "listening-activity"):
        raise RefusedError(
            f"stats: found {entity!r:.40}, wanted artists, recordings or listening-activity", 404
        )

    def ask(cursor: Any) -> Response:
        cursor.execute(
            "SELECT coalesce(extract(epoch FROM min(day)), 0)::bigint FROM song_day_streams "
            "WHERE source IN ('scrobble', 'import')"
        )
        span = _span(request, cursor.fetchone()[0])
        if entity == "listening-activity":
            found = {"listening_activity": stats.listening_activity(cursor, None, span)}
        else:
            found = {entity: stats.household(cursor, entity, span, count=count, offset=offset)}
        return JSONResponse({"payload": found | _told(span, None) | {"offset": offset}})

    return await or_unavailable(context(request).database.run(ask), "stats")


ROUTES = [
    Route("/1/submit-listens", submit, methods=["POST"]),
    Route("/1/validate-token", validate_token, methods=["GET"]),
    Route("/1/user/{name}/listens", listens, methods=["GET"]),
    Route("/1/user/{name}/listen-count", listen_count, methods=["GET"]),
    Route("/1/user/{name}/playing-now", playing_now, methods=["GET"]),
    Route("/1/playing-now/delete", delete_playing_now, methods=["POST"]),
    Route("/1/delete-listen", delete_listen, methods=["POST"]),
    Route("/1/latest-import", latest_import, methods=["GET", "POST"]),
    Route("/1/feedback/recording-feedback", set_feedback, methods=["POST"]),
    Route("/1/feedback/user/{name}/get-feedback", get_feedback, methods=["GET"]),
    Route("/1/metadata/lookup", lookup, methods=["GET", "POST"]),
    Route("/1/stats/user/{name}/listening-activity", user_activity, methods=["GET"]),
    Route("/1/stats/user/{name}/daily-activity", user_activity, methods=["GET"]),
    Route("/1/stats/user/{name}/{entity}", user_stats, methods=["GET"]),
    Route("/1/stats/sitewide/{entity}", household_stats, methods=["GET"]),
]
