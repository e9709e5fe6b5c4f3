"""Listening histories: exports of other services to plays of the topic, and plays to an export."""
