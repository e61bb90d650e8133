"""What must survive a death: overrides and dials, in SQLite, in a directory of the stack's own."""
