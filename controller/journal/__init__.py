"""What must survive a death: overrides, dials and calls that are listened to, as rows in SQLite or
PostgreSQL, and the directories and locks that show whose rows they are."""
