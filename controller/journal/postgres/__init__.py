"""The journal in PostgreSQL, for stacks of several machines. It needs ``trunkline[postgres]``."""
