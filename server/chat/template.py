"""One chat template: compiled once, rendered per request, with messages made to its liking."""

import copy
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from jinja2 import TemplateError as JinjaError
from jinja2 import TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError

from server.chat import budget
from server.chat.budget import MAX_TEXT, with_budget
from server.chat.errors import TemplateError
from server.chat.messages import normalize, normalize_tools, simplify_tools
from server.chat.sandbox import ChatEnvironment
from server.chat.traits import Message, Traits, probe_traits

# ChatML, for a model whose file carries no template; stated in the README.
FALLBACK_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_TOOLS_NAME = re.compile(r"functions|\w+_(?:tools|functions)")  # other names for tools
MAX_SOURCE = 1 << 17  # characters; compiling takes a second for so many


class ChatTemplate:
    """A compiled template. Immutable after construction: threads may share it.

    `source` is Jinja text ("" or None: the stated ChatML fallback). Raises `TemplateError` where
    it does not compile.
    """

    def __init__(self, source: str | None, bos_token: str = "", eos_token: str = "") -> None:
        self.source = source or FALLBACK_TEMPLATE
        self._deadline: float | None = None
        self.bos_token = bos_token
        self.eos_token = eos_token
        self._environment = ChatEnvironment()
        self._template, names, attributes = self._compile()
        self.variables: frozenset[str] = names
        self.attributes: frozenset[str] = attributes
        self._mutates = any(f".{name}(" in self.source for name in ("append", "pop", "insert"))
        self._no_tools: dict[str, Any] = {"tools": None}
        self.tools_variable = "tools"
        with self.probing():
            self._no_tools = self._absent_tools()
            self.traits: Traits = self._probe()

    @contextmanager
    def probing(self) -> Iterator[None]:
        """All renders inside share the time of one: a slow template cannot hold up a start."""
        self._deadline = time.monotonic() + budget.MAX_SECONDS
        try:
            yield
        finally:
            self._deadline = None

    def _probe(self) -> Traits:
        """What the template takes; tools go by the first name under which it prints them."""
        usual = probe_traits(self.render_exactly, self.attributes)
        others = sorted(name for name in self.variables if _TOOLS_NAME.fullmatch(name))
        for self.tools_variable in [] if usual.prints_tools else others:
            traits = probe_traits(self.render_exactly, self.attributes)
            if traits.prints_tools:
                return traits
        self.tools_variable = "tools"
        return usual

    def _absent_tools(self) -> dict[str, Any]:
        """How to say that there are no tools: None, as Hugging Face does; some fail on it."""
        ways: tuple[dict[str, Any], ...] = ({"tools": None}, {}, {"tools": []})
        for self._no_tools in ways:
            for content in ("hello", [{"type": "text", "text": "hello"}]):
                try:
                    self.render_exactly([{"role": "user", "content": content}])
                except TemplateError as error:
                    if error.kind == "limit":
                        raise
                    continue
                return self._no_tools
        return {"tools": None}

    def _compile(self) -> tuple[Any, frozenset[str], frozenset[str]]:
        if len(self.source) > MAX_SOURCE:
            raise TemplateError(f"the chat template is longer than {MAX_SOURCE}", "limit")
        try:
            tree = self._environment.parse(self.source)
            template = self._environment.from_string(tree)
        except TemplateSyntaxError as error:
            text = f"the chat template does not compile: {error.message} (line {error.lineno})"
            raise TemplateError(text, "syntax") from error
        except (JinjaError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
            raise TemplateError(f"the chat template does not compile: {error}", "syntax") from error
        names = frozenset(n.name for n in tree.find_all(nodes.Name) if n.ctx == "load")
        return template, names, frozenset(_attributes(tree))

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The prompt for `messages` (dicts in OpenAI's shape), adapted to what the template takes.

        `kwargs` are variables of the template (enable_thinking, reasoning_effort, …).
        """
        adapted = normalize(messages, self.traits)
        return self.render_adapted(adapted, tools, add_generation_prompt, **kwargs)

    def render_adapted(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None,
        add_generation_prompt: bool,
        **kwargs: Any,
    ) -> str:
        """Adapted messages with tools as the request gave them.

        Some templates know only plain types: should they fail, they are shown simpler schemas.
        """
        if not tools:
            return self.render_exactly(messages, None, add_generation_prompt, **kwargs)
        listed = normalize_tools(tools, self.traits)
        try:
            return self.render_exactly(messages, listed, add_generation_prompt, **kwargs)
        except TemplateError as error:
            simpler = normalize_tools(simplify_tools(tools), self.traits)
            if error.kind == "raised" or simpler == listed:
                raise
            return self.render_exactly(messages, simpler, add_generation_prompt, **kwargs)

    def render_exactly(
        self,
        messages: Sequence[Message],
        tools: Sequence[Message] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The template's own words for exactly these messages; nothing is adapted."""
        variables = {
            **kwargs,
            "messages": self._own(messages),
            **self._no_tools,
            **({self.tools_variable: self._own(tools)} if tools else {}),
            "documents": kwargs.get("documents"),
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
        }
        try:
            return self._run(variables)
        except TemplateError:
            raise
        except SecurityError as error:
            raise TemplateError(f"the chat template is not allowed to: {error}") from error
        except RecursionError as error:
            raise TemplateError("the chat template recurses too deeply") from error
        # A template is a program from a stranger: whatever it raises is a template error.
        except Exception as error:
            text = f"the chat template fails on these messages: {type(error).__name__}: {error}"
            raise TemplateError(text) from error

    def _own(self, items: Sequence[Message]) -> list[Message]:
        """A list the template may write to, where it does such things."""
        return copy.deepcopy(list(items)) if self._mutates else list(items)

    def _run(self, variables: dict[str, Any]) -> str:
        context = self._template.new_context(with_budget(variables, self._deadline))
        chunks: list[str] = []
        size = 0
        for chunk in self._template.root_render_func(context):
            size += len(chunk)
            if size > MAX_TEXT:
                raise TemplateError(f"the chat template prints more than {MAX_TEXT}", "limit")
            chunks.append(chunk)
        return "".join(chunks)


def _attributes(tree: nodes.Template) -> set[str]:
    """Every name the template reads off a value: `m.name`, `m['name']`, `m.get('name')`."""
    found = {node.attr for node in tree.find_all(nodes.Getattr)}
    found |= {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    return {name for name in found if name.isidentifier()}
