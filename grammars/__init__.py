"""Text in, text out: JSON Schema and other constraints as grammars."""

from .compiler import compile_schema
from .errors import UnsupportedSchema

__all__ = ["UnsupportedSchema", "compile_schema"]
