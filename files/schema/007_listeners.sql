-- Real listeners: who they are, the tokens of their players, what they hear now and what they love. Their plays are in
-- stream_events, with the listener's name as user_id.

CREATE TABLE listeners (
    name              text        PRIMARY KEY CHECK (name ~ '^[^[:cntrl:]/]{1,64}$' AND name = btrim(name)),
    age_group         text        NOT NULL DEFAULT 'unknown',
    country           text        NOT NULL DEFAULT 'ZZ',
    subscription_type text        NOT NULL DEFAULT 'unknown',
    added_at          timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE listeners IS 'People of the household, as their plays are to be counted from now on';
-- Two people whose names differ by case alone would be one to most players.
CREATE UNIQUE INDEX ON listeners (lower(name));

-- One for each person and player. A token has 122 random bits, so that its plain hashes tell nothing of it; the older
-- protocols prove that they know the MD5 of the password, which is the token.
CREATE TABLE listener_tokens (
    token_sha256 bytea       PRIMARY KEY CHECK (length(token_sha256) = 32),
    token_md5    text        NOT NULL UNIQUE CHECK (token_md5 ~ '^[0-9a-f]{32}$'),
    listener     text        NOT NULL REFERENCES listeners ON DELETE CASCADE,
    player       text        NOT NULL CHECK (player ~ '^[^[:cntrl:]]{1,64}$'),
    made_at      timestamptz NOT NULL DEFAULT now(),
    revoked_at   timestamptz
);
COMMENT ON TABLE listener_tokens IS 'What lets a player send plays; the token itself is shown once and stored nowhere';
CREATE UNIQUE INDEX ON listener_tokens (listener, lower(player)) WHERE revoked_at IS NULL;

CREATE TABLE listener_playing (
    listener   text        PRIMARY KEY REFERENCES listeners ON DELETE CASCADE,
    title      text        NOT NULL,
    artist     text        NOT NULL,
    album      text,
    player     text        NOT NULL DEFAULT 'unknown',
    client     text,
    metadata   jsonb       NOT NULL DEFAULT '{}',
    started_at timestamptz NOT NULL DEFAULT now(),
    ends_at    timestamptz NOT NULL
);
COMMENT ON TABLE listener_playing IS 'What each listener hears now, as the player says; no play until it is sent as one';

CREATE TABLE listener_feedback (
    listener   text        NOT NULL REFERENCES listeners ON DELETE CASCADE,
    song_id    text        NOT NULL,
    title      text,
    artist     text,
    mbid       text,
    score      smallint    NOT NULL CHECK (score IN (-1, 1)),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (listener, song_id)
);
COMMENT ON TABLE listener_feedback IS 'Songs that a listener loves (1) or hates (-1)';

CREATE TABLE listener_imports (
    listener   text        NOT NULL REFERENCES listeners ON DELETE CASCADE,
    service    text        NOT NULL,
    newest     bigint      NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (listener, service)
);
COMMENT ON TABLE listener_imports IS 'Newest play (Unix seconds) that a client says it has handed over from a service';

-- The plays of one person, by time.
CREATE INDEX ON stream_events_own (user_id, event_time);

DO $$
BEGIN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO music_scrobble', current_database());
END
$$;
GRANT USAGE ON SCHEMA public TO music_scrobble;
GRANT SELECT ON listeners, listener_tokens, stream_events, song_day_streams, user_engagement_metrics TO music_scrobble;
GRANT SELECT, INSERT, UPDATE, DELETE ON listener_playing, listener_feedback, listener_imports TO music_scrobble;
-- Dashboards see who and which player, and no hash.
GRANT SELECT ON listeners, listener_playing, listener_feedback, listener_imports TO superset_reader;
GRANT SELECT (listener, player, made_at, revoked_at) ON listener_tokens TO superset_reader;
