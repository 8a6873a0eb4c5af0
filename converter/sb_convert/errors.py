"""The one exception a user sees, in the project's form: `where: what: got X, expected Y; do Z`."""


class ConvertError(Exception):
    """A problem with the input, the options or the machine; str() is the whole message."""


def bad(where: object, what: str, got: object, expected: str, do: str) -> ConvertError:
    """The exception to raise, in the one form that all messages have."""
    return ConvertError(f"{where}: {what}: got {got}, expected {expected}; {do}")
