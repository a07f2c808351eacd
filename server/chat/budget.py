"""What one render of a template may do: steps, seconds, characters, sizes of values."""

import re
import time
from collections.abc import Mapping
from typing import Any

from jinja2.exceptions import SecurityError
from jinja2.runtime import Context

from server.chat.errors import TemplateError

MAX_STEPS = 5_000_000
MAX_SECONDS = 20.0
MAX_TEXT = 1 << 24  # characters in one string
MAX_CHARS = 1 << 28  # characters produced by one render, scratch included
MAX_ITEMS = 100_000  # elements of one list, nodes of one literal
MAX_BITS = 4096  # of an integer

_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_BUDGET = "<budget>"  # a key no template can name
SCALARS = (str, int, float, bool, type(None))
WIDE_SPEC = re.compile(r"\d{5,}|%[^a-zA-Z%]*\*|\{[^{}]*:[^{}]*\{")


class Budget:
    """What one render may still do. Not shared: one per render."""

    __slots__ = ("_chars", "_deadline", "_steps")

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._steps = 0
        self._chars = 0

    def step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise TemplateError(f"the chat template takes more than {MAX_STEPS} steps", "limit")
        if not self._steps & 31 and time.monotonic() > self._deadline:
            raise TemplateError(f"the chat template runs longer than {MAX_SECONDS:g} s", "limit")

    def spend(self, chars: int) -> None:
        """Account for a string of `chars` characters before it is made."""
        self._chars += chars
        if chars > MAX_TEXT or self._chars > MAX_CHARS:
            raise TemplateError("the chat template produces too much text", "limit")
        if chars > 4096 and time.monotonic() > self._deadline:
            raise TemplateError(f"the chat template runs longer than {MAX_SECONDS:g} s", "limit")

    def measure(self, value: object) -> None:
        """Refuse a value whose printed form would be huge; nesting counts as printed."""
        stack, items = [value], 0
        while stack:
            item = stack.pop()
            items += 1
            if items > MAX_ITEMS:
                raise TemplateError("the chat template builds too large a value", "limit")
            if isinstance(item, str):
                self.spend(len(item))
            elif isinstance(item, Mapping):
                stack.extend(item.keys())
                stack.extend(item.values())
            elif isinstance(item, (list, tuple)):
                if len(item) > MAX_ITEMS:
                    raise TemplateError("the chat template builds too large a list", "limit")
                stack.extend(item)


class BudgetContext(Context):
    """Jinja's context with the budget of its render; compiled code calls `context.step()`."""

    def __init__(self, environment: Any, parent: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(environment, parent, *args, **kwargs)
        self.budget: Budget = parent[_BUDGET]
        self.step = self.budget.step
        self.spend = self.budget.spend


def budget_of(context: Context) -> Budget:
    assert isinstance(context, BudgetContext)
    return context.budget


def with_budget(variables: dict[str, Any], deadline: float | None = None) -> dict[str, Any]:
    """The variables of one render plus a fresh budget for it (until `deadline`, if given)."""
    ends = time.monotonic() + MAX_SECONDS
    return {**variables, _BUDGET: Budget(ends if deadline is None else min(ends, deadline))}


def check_binop(budget: Budget, operator: str, left: Any, right: Any) -> None:
    if operator == "+":
        if isinstance(left, str) and isinstance(right, str):
            budget.spend(len(left) + len(right))
        elif isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
            _check_items(len(left) + len(right))
    elif operator == "%":
        if isinstance(left, str):
            _check_format(budget, left, right)
    else:
        _check_product(budget, operator, left, right)


def _check_product(budget: Budget, operator: str, left: Any, right: Any) -> None:
    for text, times in ((left, right), (right, left)):
        if isinstance(text, str) and isinstance(times, int):
            budget.spend(len(text) * max(times, 0))
        elif isinstance(text, (list, tuple)) and isinstance(times, int):
            _check_items(len(text) * max(times, 0))
    if isinstance(left, int) and isinstance(right, int):
        power = operator == "**"
        bits = left.bit_length() * max(right, 1) if power else left.bit_length()
        if bits + (0 if power else right.bit_length()) > MAX_BITS:
            raise TemplateError("the chat template computes too large a number", "limit")


def _check_items(count: int) -> None:
    if count > MAX_ITEMS:
        raise TemplateError("the chat template builds too large a list", "limit")


def _check_format(budget: Budget, pattern: str, values: object) -> None:
    if WIDE_SPEC.search(pattern):
        raise TemplateError("the chat template formats with too wide a field", "limit")
    budget.spend(len(pattern) * 100)
    if not isinstance(values, SCALARS):
        budget.measure(values)


def check_call(budget: Budget, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    name = getattr(target, "__name__", "")
    if name in ("format", "format_map"):
        pattern = getattr(getattr(target, "__wrapped__", None), "__self__", None)
        if isinstance(pattern, str):
            _check_format(budget, pattern, [*args, *kwargs.values()])
        return
    owner = getattr(target, "__self__", None)
    if isinstance(owner, str):
        _check_text_method(budget, owner, name, args, kwargs)
    elif isinstance(owner, list) and name in ("append", "insert"):
        _check_items(len(owner) + 1)
        if not all(isinstance(arg, SCALARS) for arg in args):
            raise SecurityError("a chat template may add only text and numbers to a list")
        budget.spend(sum(len(arg) for arg in args if isinstance(arg, str)))


def _check_text_method(
    budget: Budget, text: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    numbers = [abs(arg) for arg in (*args, *kwargs.values()) if isinstance(arg, int)]
    budget.spend(len(text))
    if name in ("center", "ljust", "rjust", "zfill"):
        budget.spend(max(numbers, default=0))
    elif name == "expandtabs":
        budget.spend(len(text) + text.count("\t") * max(numbers, default=8))
    elif name == "replace" and len(args) >= 2 and all(isinstance(a, str) for a in args[:2]):
        budget.spend(len(text) + text.count(args[0]) * len(args[1]))
    elif name == "join" and args:
        if isinstance(args[0], (list, tuple)):
            budget.measure(args[0])
            budget.spend(len(text) * len(args[0]))
    elif name in ("split", "rsplit"):
        separator = args[0] if args else kwargs.get("sep")
        _check_items(len(text.split(separator, MAX_ITEMS)))
    elif name == "splitlines":
        _check_items(sum(map(text.count, _LINE_ENDS)))
    elif name == "translate":
        raise SecurityError("a chat template may not call str.translate")
