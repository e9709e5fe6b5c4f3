-- Demo plays can be taken away again (musicctl demo remove). The totals of the topic stay as they are, for ever; so the
-- source remembers how many of its accepted plays are gone, and the sum over the sources still is the topic's.
ALTER TABLE ingest_totals ADD COLUMN removed bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN ingest_totals.removed IS 'Plays taken away with their metrics; no longer among accepted';
