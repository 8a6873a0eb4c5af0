"""Errors of the suite."""


class BenchError(Exception):
    """`where: what: got X, expected Y; do Z`."""


class Skip(Exception):
    """A case cannot run here; the message is the reason that its row gives."""
