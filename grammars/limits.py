"""Bounds on the work and the size of one compilation. Each is refused by its own name."""

import time
from dataclasses import dataclass, field

from .errors import LimitExceeded


@dataclass(frozen=True, slots=True)
class Limits:
    schema_nodes: int = 100_000  # objects, arrays and scalars in the schema
    schema_depth: int = 100  # nesting of the schema
    alternatives: int = 300  # branches of one value after normalising
    states: int = 6_000  # states of one automaton
    pattern_length: int = 5_000  # characters in one regular expression
    counters: int = 6_000  # states of one array or object that counts
    rules: int = 20_000  # rules in one grammar
    text_bytes: int = 1_000_000  # printed GBNF
    seconds: float = 5.0


@dataclass(slots=True)
class Budget:
    """The running side of `Limits`: raises `LimitExceeded` naming the limit that was hit."""

    limits: Limits
    deadline: float = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = time.monotonic() + self.limits.seconds

    def check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise LimitExceeded("", "", "seconds", f"not done in {self.limits.seconds:g} s")

    def check(self, limit: str, value: int, keyword: str = "") -> None:
        bound = getattr(self.limits, limit)
        if value > bound:
            raise LimitExceeded("", keyword, limit, f"{value} is over {bound}")
