"""A Jinja environment for templates nobody has read: no way out, and a bound on all they do.

Set up as Hugging Face's `apply_chat_template` does it (trim_blocks, lstrip_blocks, loop controls,
`raise_exception`, `strftime_now`, a `tojson` that does not escape HTML). On top of Jinja's
sandbox the compiled code counts steps and characters, so that a loop without end or a doubled
string becomes a `TemplateError` of kind "limit". No signals: it works in any thread.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.filters import FILTERS
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from server.chat.errors import TemplateError

MAX_STEPS = 5_000_000
MAX_SECONDS = 20.0
MAX_TEXT = 1 << 24  # characters in one string
MAX_CHARS = 1 << 28  # characters produced by one render, scratch included
MAX_ITEMS = 100_000  # elements of one list, nodes of one literal
MAX_BITS = 4096  # of an integer

_BUDGET = "<budget>"  # a key no template can name
_SCALARS = (str, int, float, bool, type(None))
_WIDE_SPEC = re.compile(r"\d{5,}|%[^a-zA-Z%]*\*|\{[^{}]*:[^{}]*\{")


class Budget:
    """What one render may still do. Not shared: one per render."""

    __slots__ = ("_chars", "_deadline", "_steps")

    def __init__(self) -> None:
        self._deadline = time.monotonic() + MAX_SECONDS
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


def budget_of(context: Context) -> Budget:
    budget = context.parent[_BUDGET]
    assert isinstance(budget, Budget)
    return budget


def with_budget(variables: dict[str, Any]) -> dict[str, Any]:
    """The variables of one render plus a fresh budget for it."""
    return {**variables, _BUDGET: Budget()}


class _CountingCode(CodeGenerator):
    """Compiles a step into every block and assignment, and sizes into literals and `~`."""

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        self.writeline("environment.step(context)")
        super().blockvisit(nodes, frame)

    def visit_Assign(self, node: nodes.Assign, frame: Frame) -> None:  # noqa: N802
        """As Jinja does it, except that `set message.key = …` may also write to an object."""
        self.push_assign_tracking()
        for name in {ref.name for ref in node.find_all(nodes.NSRef)}:
            self.writeline(f"environment.check_target({frame.symbols.ref(name)})")
        self.newline(node)
        self.visit(node.target, frame)
        self.write(" = ")
        self.visit(node.node, frame)
        self.pop_assign_tracking(frame)
        self.writeline("environment.step(context)")

    def visit_Output(self, node: nodes.Output, frame: Frame) -> None:  # noqa: N802
        static = sum(len(n.data) for n in node.nodes if isinstance(n, nodes.TemplateData))
        if static and not frame.require_output_check:
            self.writeline(f"environment.spend(context, {static})")
        super().visit_Output(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.join_text(context, (")
        for item in node.nodes:
            self.visit(item, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._measured(node, node.items, super().visit_List, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._measured(node, [pair.value for pair in node.items], super().visit_Dict, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._measured(node, node.items, super().visit_Tuple, frame)
        else:
            super().visit_Tuple(node, frame)

    def _measured(
        self, node: Any, items: list[nodes.Expr], visit: Callable[[Any, Frame], None], frame: Frame
    ) -> None:
        if all(isinstance(item, nodes.Const) for item in items):
            return visit(node, frame)
        self.write("environment.measured(context, ")
        visit(node, frame)
        return self.write(")")


class GenerationExtension(Extension):
    """`{% generation %}…{% endgeneration %}` marks training text; here it is its body."""

    tags = {"generation"}  # noqa: RUF012 (Jinja declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox every chat template is compiled in. Stateless: threads may share one."""

    code_generator_class = _CountingCode
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, GenerationExtension],
            finalize=printed,
            optimized=False,  # constants folded at compile time would escape the budget
        )
        del self.globals["lipsum"]
        self.globals["raise_exception"] = raise_exception
        self.globals["strftime_now"] = strftime_now
        self.filters = {**self.filters, **guarded_filters()}
        for unused in ("pprint", "random", "urlize", "xmlattr", "striptags", "wordwrap"):
            del self.filters[unused]

    def step(self, context: Context) -> None:
        budget_of(context).step()

    def check_target(self, target: object) -> None:
        if not isinstance(target, (Namespace, dict)):
            raise SecurityError("only namespaces and objects can be assigned to")

    def spend(self, context: Context, chars: int) -> None:
        budget_of(context).spend(chars)

    def measured(self, context: Context, value: Any) -> Any:
        budget_of(context).measure(value)
        return value

    def join_text(self, context: Context, items: tuple[Any, ...]) -> str:
        texts = [printed(context, item) for item in items]
        budget_of(context).spend(sum(map(len, texts)))
        return "".join(texts)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, list) and attr in ("append", "insert", "pop"):
            return True  # some templates keep queues; `call` lets only scalars in
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _check_binop(budget_of(context), operator, left, right)
        return super().call_binop(context, operator, left, right)

    # Jinja's own spelling: a keyword argument of the template must not collide with ours.
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget = budget_of(__context)
        budget.step()
        _check_call(budget, __obj, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, str):
            budget.spend(len(result))
        elif __obj is dict:
            budget.measure(result)
        return result


def _check_binop(budget: Budget, operator: str, left: Any, right: Any) -> None:
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
    if _WIDE_SPEC.search(pattern):
        raise TemplateError("the chat template formats with too wide a field", "limit")
    budget.spend(len(pattern) * 100)
    if not isinstance(values, _SCALARS):
        budget.measure(values)


def _check_call(budget: Budget, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
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
        if not all(isinstance(arg, _SCALARS) for arg in args):
            raise SecurityError("a chat template may add only text and numbers to a list")


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
    elif name == "translate":
        raise SecurityError("a chat template may not call str.translate")


@pass_context
def printed(context: Context, value: Any) -> str:
    """The text of a value in `{{ }}` and `~`, accounted for."""
    budget = budget_of(context)
    if isinstance(value, str):
        budget.spend(len(value))
        return value
    if isinstance(value, (list, tuple, Mapping)):
        budget.measure(value)
    return str(value)


@pass_context
def tojson(
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as Hugging Face prints it: `<`, `>`, `&` and `'` stay as they are."""
    if indent is not None and (indent if isinstance(indent, int) else len(indent)) > 64:
        raise TemplateError("tojson indents too far", "limit")
    budget_of(context).measure(value)
    text = json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
    budget_of(context).spend(len(text))
    return text


def guarded_filters() -> dict[str, Callable[..., Any]]:
    """Filters that could make much out of little, each behind the budget."""

    def costing(name: str, cost: Callable[..., int]) -> Callable[..., Any]:
        plain = FILTERS[name]
        wants = getattr(plain, "jinja_pass_arg", None)

        @pass_context
        def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
            budget = budget_of(context)
            budget.step()
            if isinstance(value, Iterator):
                value = list(_counted(context, value))
            budget.spend(cost(value, *args, **kwargs))
            lead = () if wants is None else (_leading(wants.name, context),)
            return plain(*lead, value, *args, **kwargs)

        return run

    def lazy(name: str) -> Callable[..., Iterator[Any]]:
        plain = FILTERS[name]

        @pass_context
        def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
            return _counted(context, plain(context, value, *args, **kwargs))

        return run

    guarded = {name: costing(name, cost) for name, cost in _FILTER_COSTS.items()}
    guarded |= {name: lazy(name) for name in ("map", "select", "reject", "selectattr")}
    guarded |= {"rejectattr": lazy("rejectattr"), "string": printed, "tojson": tojson}
    return guarded


def _leading(kind: str, context: Context) -> Any:
    return {
        "context": context,
        "eval_context": context.eval_ctx,
        "environment": context.environment,
    }[kind]


def _counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    budget = budget_of(context)
    for item in items:
        budget.step()
        if isinstance(item, str):
            budget.spend(len(item))
        yield item


def _text_length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, (list, tuple)):
        return sum(map(_text_length, value)) if len(value) <= MAX_ITEMS else MAX_TEXT + 1
    return 32 if isinstance(value, (*_SCALARS, Undefined)) else _text_length(str(value))


def _format_cost(value: str, *args: Any, **kwargs: Any) -> int:
    if _WIDE_SPEC.search(value):
        return MAX_TEXT + 1
    return len(value) + sum(map(_text_length, (*args, *kwargs.values())))


def _replace_cost(s: Any, old: Any = "", new: Any = "", count: Any = None) -> int:
    return len(str(s)) + str(s).count(str(old)) * len(str(new))


def _indent_cost(s: Any, width: Any = 4, first: bool = False, blank: bool = False) -> int:
    step = width if isinstance(width, int) else len(width)
    return len(s) + (str(s).count("\n") + 2) * abs(step)


def _join_cost(value: Any, d: Any = "", attribute: Any = None) -> int:
    items = list(value)
    return _text_length(items) + len(items) * len(str(d))


_FILTER_COSTS: Mapping[str, Callable[..., int]] = {
    "batch": lambda value, linecount, fill_with=None: abs(linecount),
    "slice": lambda value, slices, fill_with=None: abs(slices) * 64,
    "center": lambda value, width=80: abs(width),
    "indent": _indent_cost,
    "format": _format_cost,
    "replace": _replace_cost,
    "join": _join_cost,
    "list": lambda value: len(value) * 8 if hasattr(value, "__len__") else 0,
    "upper": lambda s: _text_length(s),
    "lower": lambda s: _text_length(s),
    "title": lambda s: _text_length(s),
    "capitalize": lambda s: _text_length(s),
    "trim": lambda value, chars=None: _text_length(value),
    "urlencode": lambda value: _text_length(value) * 3,
    "escape": lambda s: _text_length(s) * 6,
    "e": lambda s: _text_length(s) * 6,
    "forceescape": lambda s: _text_length(s) * 6,
}


def raise_exception(message: object) -> NoReturn:
    raise TemplateError(str(message), "raised")


def strftime_now(pattern: str) -> str:
    """The local time, formatted; templates print today's date with it."""
    if len(pattern) > 100 or re.search(r"\d{3,}", pattern):
        raise TemplateError("strftime_now is given too long a format", "limit")
    return datetime.now().strftime(pattern)
