-- The scrobble server's page imports exports: it sends no faster than the job reads.
GRANT SELECT ON ingest_offsets TO music_scrobble;
