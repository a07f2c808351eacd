"""What the templates of `shapes` are made of."""


def chatml(assistant: str, prompt: str = "", tools: str = "{{ tools | tojson }}") -> str:
    """ChatML around `assistant`, which prints the body of an assistant's turn `m`."""
    return (
        "{% if tools %}<|im_start|>system\nTools: " + tools + "<|im_end|>\n{% endif %}"
        "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
        + assistant
        + "<|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n" + prompt + "{% endif %}"
    )


def calls(before: str, each: str, between: str = "", after: str = "") -> str:
    """Content, then calls: `each` sees the function as `f` and the call as `c`."""
    return (
        "{{ m.content or '' }}{% if m.tool_calls %}"
        + before
        + "{% for c in m.tool_calls %}{% set f = c.function %}"
        + each
        + "{% if not loop.last %}"
        + between
        + "{% endif %}{% endfor %}"
        + after
        + "{% endif %}"
    )


JSON = '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}'
THINK = "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
NUMBER_OR_TEXT = "{{ v if v is string else v | tojson }}"
