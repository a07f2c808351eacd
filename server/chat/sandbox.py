"""A Jinja environment for templates nobody has read: no way out, and a bound on all they do.

Set up as Hugging Face's `apply_chat_template` does it (trim_blocks, lstrip_blocks, loop controls,
`raise_exception`, `strftime_now`, a `tojson` that does not escape HTML). On top of Jinja's
sandbox the compiled code counts steps and characters, so that a loop without end or a doubled
string becomes a `TemplateError` of kind "limit". No signals: it works in any thread.

The bounds stand in `budget`: 20 seconds and 5 million steps a render, 16 Mi characters a string and
256 Mi in all, 100,000 elements a list (10,000 to sort or group), 128 Ki characters of source.
"""

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError
from jinja2.ext import ExprStmtExtension, Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from server.chat.budget import BudgetContext, budget_of, check_binop, check_call
from server.chat.errors import TemplateError
from server.chat.filters import guarded_filters, printed


class _CountingCode(CodeGenerator):
    """Compiles a step into every block and assignment, and sizes into literals and `~`."""

    def blockvisit(self, nodes: Iterable[nodes.Node], frame: Frame) -> None:
        self.writeline("context.step()")
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
        self.writeline("context.step()")

    def visit_Output(self, node: nodes.Output, frame: Frame) -> None:  # noqa: N802
        static = sum(len(n.data) for n in node.nodes if isinstance(n, nodes.TemplateData))
        if static and not frame.require_output_check:
            self.writeline(f"context.spend({static})")
        super().visit_Output(node, frame)

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.join_text(context, (")
        for item in node.nodes:
            self.visit(item, frame)
            self.write(", ")
        self.write("))")

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.arg, nodes.Slice):  # a copy
            self._measured(node, [node.node], super().visit_Getitem, frame)
        else:
            super().visit_Getitem(node, frame)

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
    context_class = BudgetContext
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, ExprStmtExtension, GenerationExtension],
            finalize=printed,
            optimized=False,  # constants folded at compile time would escape the budget
        )
        del self.globals["lipsum"]
        self.globals["raise_exception"] = raise_exception
        self.globals["strftime_now"] = strftime_now
        self.filters = {**self.filters, **guarded_filters()}
        for unused in ("pprint", "random", "urlize", "xmlattr", "striptags", "wordwrap"):
            del self.filters[unused]

    def check_target(self, target: object) -> None:
        if not isinstance(target, (Namespace, dict)):
            raise SecurityError("only namespaces and objects can be assigned to")

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
        check_binop(budget_of(context), operator, left, right)
        return super().call_binop(context, operator, left, right)

    # Jinja's own spelling: a keyword argument of the template must not collide with ours.
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        budget = budget_of(__context)
        budget.step()
        check_call(budget, __obj, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, str):
            budget.spend(len(result))
        elif __obj is dict:
            budget.measure(result)
        return result


def raise_exception(message: object) -> NoReturn:
    raise TemplateError(str(message), "raised")


def strftime_now(pattern: str) -> str:
    """The local time, formatted; templates print today's date with it."""
    if len(pattern) > 100 or re.search(r"\d{3,}", pattern):
        raise TemplateError("strftime_now is given too long a format", "limit")
    return datetime.now().strftime(pattern)
