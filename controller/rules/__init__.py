"""The controller's rules: who owns which number and which call. No file here does I/O.

Each file has the rules of one subject, and imports no other subject's. Rules tell one another
facts (:mod:`.facts`); ``HEARS`` in ``core.py`` says who hears which, in which order. A rule is a
function with two arguments: the moment (:mod:`.moment`: the book, the time, where facts and
instructions go), and the event or fact that it hears. Everything that it knows stands in the book
(:mod:`.book`), and every state changes by a literal table (:mod:`.tables`).

For example, this is a rule, somewhat shortened. It reads the book, lets an entity change itself,
and tells who may care::

    def restored(at: Moment, result: ev.Restored) -> None:
        lease = at.book.lease_of(result.override)
        lease.step("restored")
        at.book.drop_lease(lease)
        at.tell(f.NumberBack(tuple(lease.leaving)))

The session that waited for its number hears ``NumberBack``. This rule does not know that there is
one.
"""
