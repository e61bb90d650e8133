"""The journal in PostgreSQL, for stacks of several machines. It needs ``trunkline[postgres]``.

:mod:`.stacks` is one stack's journal and its lease, :mod:`.fleet` what stacks have together,
:mod:`.register` all stacks as one process sees them, and :mod:`.server` the connections below.
"""
