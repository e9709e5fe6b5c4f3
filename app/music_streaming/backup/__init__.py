"""Backups: databases, what is remembered beside them, settings, secrets, in one file; and the way back."""
