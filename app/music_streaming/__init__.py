"""Music-streaming analytics: one play, from its event to the dashboards."""
