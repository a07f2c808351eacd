"""What can go wrong between a schema and its grammar.

GrammarError(ValueError)
    UnsupportedSchema      the schema cannot be enforced: path, keyword, reason
        InvalidSchema      it is no JSON Schema at all
        LimitExceeded      it can be, but not within a limit: limit names it
    GBNFSyntaxError        a user's grammar does not parse or cannot be run: line, column
    LarkSyntaxError        the same of a grammar in Lark's notation
    UnsupportedPattern     a regular expression outside what automata express: reason, position
"""


class GrammarError(ValueError):
    """Base of every error of this package; the request that brought the grammar is a 400."""


class UnsupportedSchema(GrammarError):
    """A schema that cannot be enforced exactly.

    `path` is a JSONPath into the schema (`$` is the root), `keyword` the keyword at fault
    ("" where it is the whole schema), `reason` a clause in plain words.
    """

    def __init__(self, path: str, keyword: str, reason: str) -> None:
        self.path, self.keyword, self.reason = path, keyword, reason
        super().__init__(path, keyword, reason)

    def __str__(self) -> str:
        where = self.path or "$"
        return (
            f"{where}: {self.keyword}: {self.reason}" if self.keyword else f"{where}: {self.reason}"
        )

    def locate(self, path: str, keyword: str = "") -> None:
        """Fill in where it happened, unless a place nearer to the cause is known."""
        self.path = self.path or path
        self.keyword = self.keyword or keyword


class InvalidSchema(UnsupportedSchema):
    """The meta-schema rejects it, or a reference leads nowhere."""


class LimitExceeded(UnsupportedSchema):
    """A limit of `grammars.Limits` was hit; `limit` is the name of its field."""

    def __init__(self, path: str, keyword: str, limit: str, reason: str) -> None:
        self.limit = limit
        super().__init__(path, keyword, f"limit {limit}: {reason}")


class UnsupportedPattern(GrammarError):
    """A regular expression that is malformed or not regular; `position` is an offset in it."""

    def __init__(self, pattern: str, position: int, reason: str) -> None:
        self.pattern, self.position, self.reason = pattern, position, reason
        super().__init__(f"{reason} at offset {position} of {pattern!r}")


class GBNFSyntaxError(GrammarError):
    """A GBNF text that does not parse or cannot be run; `line` and `column` count from 1."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        self.line, self.column, self.reason = line, column, reason
        super().__init__(f"line {line}, column {column}: {reason}")


class LarkSyntaxError(GrammarError):
    """A Lark text that does not parse, or uses what is not supported; lines count from 1."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        self.line, self.column, self.reason = line, column, reason
        super().__init__(f"line {line}, column {column}: {reason}")
