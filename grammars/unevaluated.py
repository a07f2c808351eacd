"""unevaluatedProperties and unevaluatedItems."""

from .errors import UnsupportedSchema


def expand(x, place):
    raise UnsupportedSchema("", "unevaluatedProperties", "TODO")
