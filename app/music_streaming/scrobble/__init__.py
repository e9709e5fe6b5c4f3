"""The scrobble server: plays of real players, by the protocols that players speak, into Kafka."""
