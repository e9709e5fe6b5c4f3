-- What the hourly look at the board has found (musicctl health --note), so that Pipeline health shows it.

CREATE TABLE board_findings (
    board    text        NOT NULL,
    position smallint    NOT NULL,
    level    text        NOT NULL CHECK (level IN ('red', 'yellow', 'green')),
    name     text        NOT NULL,
    found    text        NOT NULL,
    command  text        NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (board, position)
);
COMMENT ON TABLE board_findings IS 'The last look at each board: what is red or yellow, each with the command; one green row where nothing is';

CREATE TABLE board_writes (
    board       text        NOT NULL,
    service     text        NOT NULL,
    bytes_a_day bigint      NOT NULL,
    noted_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (board, service)
);
COMMENT ON TABLE board_writes IS 'How much each service of a board, and its disk in all, writes a day: what wears a card out';

GRANT SELECT, INSERT, DELETE ON board_findings, board_writes TO music_writer;
GRANT SELECT ON board_findings, board_writes TO superset_reader;
