"""Frames of turns × ways of calling × ways of thinking: discovery must not depend on a family."""

import itertools
import random

import pytest

from server.chat import ChatFormat
from tests.server.chat.turns import TURNS, USER, parsed, plain, written

# What stands before and after a user's words, before and after the assistant's, in the prompt.
FRAMES = {
    "chatml": ("<|im_start|>{{ m.role }}\n", "<|im_end|>\n", "<|im_start|>assistant\n"),
    "headers": (
        "<|h|>{{ m.role }}<|/h|>\n\n",
        "<|eot|>",
        "<|h|>assistant<|/h|>\n\n",
    ),
    "brackets": ("[INST] ", " [/INST]", ""),
    "tags": ("<|{{ m.role }}|>\n", "<|end|>\n", "<|assistant|>\n"),
    "no-ends": ("<|{{ m.role }}|>\n", "", "<|assistant|>\n"),
    "words": ("USER: ", " ", "ASSISTANT: "),
    "headings": ("### Instruction:\n", "\n\n", "### Response:\n"),
    "odd": ("]~b]{{ m.role }}\n", "[e~[\n", "]~b]ai\n"),
    "separators": ("{{ m.role }}<|sep|>\n", "<|over|>\n\n", "assistant<|sep|>\n"),
}
ENDS = {"brackets": "</s>", "words": "</s>"}

JSON = '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}'
VALUE = "{{ v if v is string else v | tojson }}"
EACH = "{% for k, v in f.arguments | items %}"
KEYWORDS = EACH + "{{ k }}={{ v | tojson }}{% if not loop.last %}, {% endif %}{% endfor %}"
# Before the calls, each call, between two, after them.
CALLS = {
    "tags": ("", "\n<tool_call>\n" + JSON + "\n</tool_call>", "", ""),
    "list": ("<CALLS>[", JSON, ", ", "]</CALLS>"),
    "lines": ("<calls>\n", JSON + "\n", "", "</calls>"),
    "marker": ("<|call|>", JSON, "", ""),
    "words": (" functools[", JSON, ", ", "]"),
    "bare": ("", JSON, "", ""),
    "keys": ("<|calls|>[", '{"{{ f.name }}": {{ f.arguments | tojson }}}', ", ", "]<|/calls|>"),
    "function": ("", "<function={{ f.name }}>{{ f.arguments | tojson }}</function>", "", ""),
    "args": ("", "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}", "", ""),
    "counted": (
        "<|section|>",
        "<|call|>functions.{{ f.name }}:{{ loop.index0 }}<|a|>{{ f.arguments | tojson }}<|/call|>",
        "",
        "<|/section|>",
    ),
    "fenced": (
        "<calls>",
        "<call>{{ f.name }}\n```json\n{{ f.arguments | tojson }}\n```</call>",
        "\n",
        "</calls>",
    ),
    "parameters": (
        "",
        "\n<tool_call>\n<function={{ f.name }}>\n"
        + EACH
        + "<parameter={{ k }}>\n"
        + VALUE
        + "\n</parameter>\n{% endfor %}</function>\n</tool_call>",
        "",
        "",
    ),
    "pairs": (
        "",
        "<tool_call>{{ f.name }}\n"
        + EACH
        + "<arg_key>{{ k }}</arg_key>\n<arg_value>"
        + VALUE
        + "</arg_value>\n{% endfor %}</tool_call>",
        "\n",
        "",
    ),
    "python": ("<|call_start|>[", "{{ f.name }}(" + KEYWORDS + ")", ", ", "]<|call_end|>"),
}
# In the assistant's turn, and in the prompt.
THOUGHTS = {
    "none": ("", ""),
    "tags": (
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}",
        "",
    ),
    "always": ("<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n", "<think>\n"),
    "never-shown": ("", "<think>\n"),
    "switch": (
        "{% if m.thinking %}[THINK]{{ m.thinking }}[/THINK]{% endif %}",
        "{% if enable_thinking is defined and not enable_thinking %}[THINK][/THINK]{% endif %}",
    ),
}
ALL = list(itertools.product(FRAMES, CALLS, THOUGHTS))
SAMPLE = random.Random(20).sample(ALL, 90)
SHOWN = ("content", "calls", "content-calls", "reasoning-content-call", "quotes", "types", "empty")


def template(frame: str, calls: str, thoughts: str) -> str:
    before, after, header = FRAMES[frame]
    opening, each, between, closing = CALLS[calls]
    shown, prompt = THOUGHTS[thoughts]
    return (
        "{% if tools %}Tools: {{ tools | tojson }}\n\n{% endif %}{% for m in messages %}"
        "{% if m.role == 'assistant' %}" + header + shown + "{{ m.content or '' }}"
        "{% if m.tool_calls %}"
        + opening
        + "{% for c in m.tool_calls %}{% set f = c.function %}"
        + each
        + "{% if not loop.last %}"
        + between
        + "{% endif %}{% endfor %}"
        + closing
        + "{% endif %}"
        + ENDS.get(frame, after)
        + "{% else %}"
        + before
        + "{{ m.content }}"
        + after
        + "{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}" + header.rstrip(" ") + prompt + "{% endif %}"
    )


@pytest.mark.parametrize("combination", SAMPLE, ids="+".join)
def test_any_combination_makes_the_round_trip(combination: tuple[str, str, str]) -> None:
    form = ChatFormat.from_template(template(*combination), eos_token="</s>")
    for name in SHOWN:
        message = TURNS[name]
        text = written(form, message)
        prompt = form.render(USER)
        whole = parsed(form, text, 0, prompt)
        assert plain(whole) == plain(message), text
        assert parsed(form, text, 1, prompt) == whole
