"""Notes how much each part takes of the disk (table disk_samples), so that its growth can be told."""

from __future__ import annotations

from typing import Any

from psycopg2.extras import execute_values

from music_streaming import broker

# Partitions are named after their table, so that a leaf's name tells the part.
_TABLES = """
SELECT CASE WHEN relname LIKE 'stream_events_demo%' THEN 'demo plays'
            WHEN relname LIKE 'stream_events%' THEN 'own plays'
            WHEN relname LIKE 'ingest_batches%' THEN 'accounts of batches'
            WHEN relname LIKE 'rejected%' THEN 'rejects'
            WHEN relname ~ 'metrics|song|genre|content_performance|country_hour|ingest_periods' THEN 'metrics'
            ELSE 'other tables' END,
       sum(pg_total_relation_size(oid))::bigint, NULL::bigint
FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
GROUP BY 1
"""
_FORGET = "DELETE FROM disk_samples WHERE taken_at < now() - interval '8 days'"
_INSERT = "INSERT INTO disk_samples (part, bytes, most) VALUES %s"
PLAYS, OTHER, FREE = "Kafka's plays", "Kafka's own topics", "free"


def take_sample(connection: Any, bootstrap: str, topic: str) -> None:
    """Note the sizes of now, in a transaction of its own; errors of broker and database as they come."""
    with broker.admin(bootstrap) as client:
        topics, free = broker.log_sizes(client)
        most = broker.topic_limit(client, topic)
    with connection, connection.cursor() as cursor:
        cursor.execute(_TABLES)
        rows = list(cursor.fetchall())
        rows.append((PLAYS, topics.pop(topic, 0), most))
        rows.append((OTHER, sum(topics.values()), None))
        # KIP-827: -1 is what a broker says that sees no mount.
        if free >= 0:
            rows.append((FREE, free, None))
        execute_values(cursor, _INSERT, rows)
        cursor.execute(_FORGET)
