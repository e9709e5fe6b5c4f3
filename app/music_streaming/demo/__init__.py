"""The demo audience: a generated population, its plays, and what the tables must then say."""
