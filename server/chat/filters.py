"""Jinja's filters behind the budget of a render, and a `tojson` that does not escape HTML."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from jinja2 import pass_context
from jinja2.filters import FILTERS
from jinja2.runtime import Context, Undefined

from server.chat.budget import MAX_ITEMS, MAX_TEXT, SCALARS, WIDE_SPEC, budget_of
from server.chat.errors import TemplateError


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

    def comparing(name: str) -> Callable[..., Any]:
        """A filter that looks at every item on its own time: few of them, each a step."""
        plain = FILTERS[name]
        wants = getattr(plain, "jinja_pass_arg", None)

        @pass_context
        def run(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
            if not isinstance(value, (str, Mapping, Undefined)):
                value = list(islice(_counted(context, value), MAX_COMPARED + 1))
            if not isinstance(value, Undefined) and len(value) > MAX_COMPARED:
                raise TemplateError(f"{name} is given more than {MAX_COMPARED} items", "limit")
            lead = () if wants is None else (_leading(wants.name, context),)
            return plain(*lead, value, *args, **kwargs)

        return run

    guarded = {name: costing(name, cost) for name, cost in _FILTER_COSTS.items()}
    guarded |= {name: comparing(name) for name in _COMPARING}
    guarded["sum"] = _sum_of_numbers(guarded["sum"])
    guarded |= {name: lazy(name) for name in ("map", "select", "reject", "selectattr")}
    guarded |= {"rejectattr": lazy("rejectattr"), "string": printed, "tojson": tojson}
    return guarded


def _sum_of_numbers(plain: Callable[..., Any]) -> Callable[..., Any]:
    """Lists added up are copied for each of them."""

    @pass_context
    def run(context: Context, value: Any, attribute: Any = None, start: Any = 0) -> Any:
        if not isinstance(start, (int, float)):
            raise TemplateError("sum adds up numbers", "limit")
        return plain(context, value, attribute, start)

    return run


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
    return 32 if isinstance(value, (*SCALARS, Undefined)) else _text_length(str(value))


def _format_cost(value: str, *args: Any, **kwargs: Any) -> int:
    if WIDE_SPEC.search(value):
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


MAX_COMPARED = 10_000  # items
_COMPARING = ("groupby", "sort", "dictsort", "unique", "min", "max", "sum")

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
    "reverse": lambda value: _text_length(value),
    "truncate": lambda s, *_, **__: _text_length(s),
    "wordcount": lambda s: _text_length(s),
    "int": lambda value, *_, **__: _text_length(value),
    "float": lambda value, *_: _text_length(value),
    "urlencode": lambda value: _text_length(value) * 3,
    "escape": lambda s: _text_length(s) * 6,
    "e": lambda s: _text_length(s) * 6,
    "forceescape": lambda s: _text_length(s) * 6,
}
