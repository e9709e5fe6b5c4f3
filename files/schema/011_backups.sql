-- What musicctl backup has taken, so that musicctl status and Pipeline health can say how old the newest one is. A backup
-- itself holds those before it.

CREATE TABLE backups (
    taken_at    timestamptz PRIMARY KEY,
    finished_at timestamptz NOT NULL DEFAULT now(),
    file        text        NOT NULL,
    bytes       bigint      NOT NULL,
    secrets     boolean     NOT NULL,
    verified_at timestamptz
);
COMMENT ON TABLE backups IS 'Backups that were finished, the files of which may be gone by now';
COMMENT ON COLUMN backups.taken_at IS 'The moment that it holds';
COMMENT ON COLUMN backups.verified_at IS 'When it was last restored beside and found equal';

GRANT SELECT ON backups TO superset_reader;
