"""Text in, text out: JSON Schema, patterns and users' grammars as GBNF and Lark.

compile(schema) -> Compiled              compile_schema(schema) -> str (GBNF)
compile_regex, compile_gbnf, compile_json_object, compile_node -> Compiled
GrammarCache                             the same, cached by content
literal, sequence, choice, repeat, optional, json_schema, regex, text_until, text_without,
raw_string, written_text                 nodes for `compile_node`
"""

from .cache import GrammarCache
from .compiler import (
    Compiled,
    compile,
    compile_gbnf,
    compile_json_object,
    compile_node,
    compile_regex,
    compile_schema,
)
from .compose import (
    choice,
    json_schema,
    literal,
    optional,
    raw_string,
    regex,
    repeat,
    sequence,
    takes_only_strings,
    text_until,
    text_without,
)
from .errors import (
    GBNFSyntaxError,
    GrammarError,
    InvalidSchema,
    LarkSyntaxError,
    LimitExceeded,
    UnsupportedPattern,
    UnsupportedSchema,
)
from .limits import Limits
from .nodes import Node
from .written import written_text

__all__ = [
    "Compiled",
    "GBNFSyntaxError",
    "GrammarCache",
    "GrammarError",
    "InvalidSchema",
    "LarkSyntaxError",
    "LimitExceeded",
    "Limits",
    "Node",
    "UnsupportedPattern",
    "UnsupportedSchema",
    "choice",
    "compile",
    "compile_gbnf",
    "compile_json_object",
    "compile_node",
    "compile_regex",
    "compile_schema",
    "json_schema",
    "literal",
    "optional",
    "raw_string",
    "regex",
    "repeat",
    "sequence",
    "takes_only_strings",
    "text_until",
    "text_without",
    "written_text",
]
