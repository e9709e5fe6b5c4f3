"""The dashboards as code: files and Superset, in both directions."""
