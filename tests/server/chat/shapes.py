"""Small templates of our own, one for each way in which public ones print calls and thoughts."""


def _chatml(assistant: str, prompt: str = "", tools: str = "{{ tools | tojson }}") -> str:
    """ChatML around `assistant`, which prints the body of an assistant's turn `m`."""
    return (
        "{% if tools %}<|im_start|>system\nTools: " + tools + "<|im_end|>\n{% endif %}"
        "{% for m in messages %}{% if m.role == 'assistant' %}<|im_start|>assistant\n"
        + assistant
        + "<|im_end|>\n{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n" + prompt + "{% endif %}"
    )


def _calls(before: str, each: str, between: str = "", after: str = "") -> str:
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


_JSON = '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}'
_THINK = "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
_NUMBER_OR_TEXT = "{{ v if v is string else v | tojson }}"

SHAPES: dict[str, str] = {
    # JSON objects: between tags, in lists, with ids, wrapped, keyed by name, encoded.
    "tags": _chatml(_THINK + _calls("", "\n<tool_call>\n" + _JSON + "\n</tool_call>")),
    "list": _chatml(_calls("<TOOLCALL>[", _JSON, ", ", "]</TOOLCALL>")),
    "list-words": _chatml(_calls(" functools[", _JSON, ", ", "]")),
    "list-bare": _chatml(_calls("[", _JSON, ", ", "]")),
    "object-bare": _chatml(_calls("", _JSON, "; ")),
    "wrapped": _chatml(
        _calls("<calls>", '{"type": "function", "function": ' + _JSON + "}", "\n", "</calls>")
    ),
    "with-id": _chatml(
        _calls(
            "<calls>[",
            '{"id": "{{ c.id }}", "name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}',
            ", ",
            "]</calls>",
        )
    ),
    "id-last": _chatml(
        _calls(
            "<calls>[",
            '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}, "id": "{{ c.id }}"}',
            ", ",
            "]</calls>",
        )
    ),
    "arguments-first": _chatml(
        _calls(
            "",
            '<call>{"arguments": {{ f.arguments | tojson }}, "name": "{{ f.name }}"}</call>',
        )
    ),
    "name-as-key": _chatml(
        _calls(
            "<|tools_prefix|>[",
            '{"{{ f.name }}": {{ f.arguments | tojson }}}',
            ", ",
            "]<|tools_suffix|>",
        )
    ),
    "encoded": _chatml(
        _calls(
            "",
            '<call>{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson | tojson }}}'
            "</call>",
        )
    ),
    "fenced-list": _chatml(
        _calls(
            "Action: ```json\n[\n",
            '    {\n        "tool_name": "{{ f.name }}",\n        "parameters": '
            "{{ f.arguments | tojson }}\n    }",
            ",\n",
            "\n]```",
        )
    ),
    "marker-only": _chatml(_calls("<|function_call|>", _JSON)),
    # The name outside, then JSON.
    "attribute": _chatml(
        _calls("", "<function={{ f.name }}>{{ f.arguments | tojson }}</function>")
    ),
    "fenced": _chatml(
        _calls(
            "<|calls_begin|>",
            "<|call_begin|>function<|sep|>{{ f.name }}\n```json\n{{ f.arguments | tojson }}\n```"
            "<|call_end|>",
            "\n",
            "<|calls_end|>",
        )
    ),
    "brackets": _chatml(
        "{% if m.thinking %}[THINK]{{ m.thinking }}[/THINK]{% endif %}"
        + _calls("", "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}")
    ),
    "id-before-name": _chatml(
        _calls(
            "<|tool_calls|>",
            "<|call:begin|>{{ c.id }}<|call:name|>{{ f.name }}<|call:args|>"
            "{{ f.arguments | tojson }}<|call:end|>",
            "",
            "<|calls|>",
        )
    ),
    "id-is-name": _chatml(
        _calls(
            "<|section_begin|>",
            "<|call_begin|>{{ c.id }}<|argument_begin|>{{ f.arguments | tojson }}<|call_end|>",
            "",
            "<|section_end|>",
        )
    ),
    "nested-tags": _chatml(
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}"
        "<answer>\n{{ m.content or '' }}\n</answer>\n"
        "{% if m.tool_calls %}<tool_calls>\n{% for c in m.tool_calls %}"
        "<tool_call>{{ c.function.name }}<tool_sep>\n```json\n"
        "{{ c.function.arguments | tojson }}\n```\n</tool_call>\n{% endfor %}</tool_calls>"
        "{% endif %}"
    ),
    "tag-pairs": _chatml(
        _calls(
            "\n<use_tool>",
            "\n<server>any</server>\n<name>{{ f.name }}</name>\n<arguments>\n"
            "{{ f.arguments | tojson }}\n</arguments>",
            "",
            "\n</use_tool>",
        )
    ),
    "string-arguments": _chatml(
        _calls("", '<call>{"name": "{{ f.name }}", "arguments": {{ f.arguments }}}</call>')
    ),
    # Argument by argument.
    "parameters": _chatml(
        _THINK
        + _calls(
            "",
            "\n<tool_call>\n<function={{ f.name }}>\n{% for k, v in f.arguments | items %}"
            "<parameter={{ k }}>\n" + _NUMBER_OR_TEXT + "\n</parameter>\n{% endfor %}"
            "</function>\n</tool_call>",
        )
    ),
    "parameters-python": _chatml(
        _calls(
            "",
            "<tool_call><function={{ f.name }}>{% for k, v in f.arguments | items %}"
            "<parameter={{ k }}>{{ v }}</parameter>{% endfor %}</function></tool_call>",
        )
    ),
    "key-value": _chatml(
        _calls(
            "",
            "<tool_call>{{ f.name }}{% for k, v in f.arguments | items %}<arg_key>{{ k }}</arg_key>"
            "<arg_value>" + _NUMBER_OR_TEXT + "</arg_value>{% endfor %}</tool_call>",
        ),
        prompt="{{ '<think>' if enable_thinking is not defined or enable_thinking "
        "else '</think>' }}",
    ),
    "invoke": _chatml(
        _calls(
            "<calls>\n",
            '<invoke name="{{ f.name }}">\n{% for k, v in f.arguments | items %}'
            '<parameter name="{{ k }}">'
            + _NUMBER_OR_TEXT
            + "</parameter>\n{% endfor %}</invoke>\n",
            "",
            "</calls>",
        )
    ),
    "typed": _chatml(
        _calls(
            "\n\n<|X|calls>\n",
            '<|X|invoke name="{{ f.name }}">\n{% for k, v in f.arguments | items %}'
            "<|X|parameter name=\"{{ k }}\" string=\"{{ 'true' if v is string else 'false' }}\">"
            + _NUMBER_OR_TEXT
            + "</|X|parameter>\n{% endfor %}</|X|invoke>\n",
            "",
            "</|X|calls>",
        )
    ),
    "open-close": (
        "{% if tools %}<|open|>system<|sep|>{{ tools | tojson }}<|close|>system<|sep|>{% endif %}"
        "{% for m in messages %}"
        '<|open|>message role="{{ m.role }}"<|sep|>'
        "{% if m.role == 'assistant' %}"
        "<|open|>think<|sep|>{{ m.reasoning_content or '' }}<|close|>think<|sep|>"
        "<|open|>response<|sep|>{{ m.content or '' }}<|close|>response<|sep|>"
        "{% if m.tool_calls %}<|open|>tools<|sep|>{% for c in m.tool_calls %}"
        '<|open|>call tool="{{ c.function.name }}" index="{{ loop.index }}"<|sep|>'
        "{% for k, v in c.function.arguments.items() %}"
        '<|open|>argument key="{{ k }}" type="'
        "{{ 'string' if v is string else 'boolean' if v is boolean else 'number' if v is number "
        "else 'null' if v is none else 'object' if v is mapping else 'array' }}"
        '"<|sep|>' + _NUMBER_OR_TEXT + "<|close|>argument<|sep|>{% endfor %}"
        "<|close|>call<|sep|>{% endfor %}<|close|>tools<|sep|>{% endif %}"
        "{% else %}{{ m.content }}{% endif %}<|close|>message<|sep|><|end_of_msg|>{% endfor %}"
        "{% if add_generation_prompt %}"
        '<|open|>message role="assistant"<|sep|><|open|>think<|sep|>{% endif %}'
    ),
    # Python and other literals.
    "python": _chatml(
        _calls(
            "<|call_start|>[",
            "{{ f.name }}({% for k, v in f.arguments | items %}{{ k }}={{ v | tojson }}"
            "{% if not loop.last %}, {% endif %}{% endfor %})",
            ", ",
            "]<|call_end|>",
        )
    ),
    "python-lines": _chatml(
        _calls(
            "<function_calls>\n",
            "{{ f.name }}({% for k, v in f.arguments | items %}{{ k }}={{ v | tojson }}"
            "{% if not loop.last %}, {% endif %}{% endfor %})",
            "\n",
            "\n</function_calls>",
        )
    ),
    "python-bare": _chatml(
        _calls(
            "[",
            "{{ f.name }}({% for k, v in f.arguments | items %}{{ k }}={{ v | tojson }}"
            "{% if not loop.last %}, {% endif %}{% endfor %})",
            ", ",
            "]",
        )
    ),
    "keyed": _chatml(
        _calls(
            "",
            "<start_call>call:{{ f.name }}{{ '{' }}"
            "{% for k, v in f.arguments | dictsort %}{{ k }}:"
            "{{ '<escape>' + v + '<escape>' if v is string else v | tojson }}"
            "{% if not loop.last %},{% endif %}{% endfor %}}<end_call>",
        )
    ),
    # Headers: recipients, channels, content wrapped in tags of its own.
    "recipients": (
        "{% if tools %}<|tools|>{{ tools | tojson }}<|eot|>{% endif %}"
        "{% for m in messages %}<|header|>{{ m.role }}<|/header|>\n\n"
        "{% if m.role == 'assistant' %}"
        "{% if m.content %}>>>all\n{{ m.content }}{% endif %}"
        "{% for c in m.tool_calls or [] %}>>>{{ c.function.name }}\n"
        "{{ c.function.arguments | tojson }}{% endfor %}"
        "{% else %}{{ m.content }}{% endif %}<|eot|>{% endfor %}"
        "{% if add_generation_prompt %}<|header|>assistant<|/header|>\n\n>>>{% endif %}"
    ),
    "name-line": (
        "[gMASK]{% if tools %}<|system|>\n{{ tools | tojson }}{% endif %}{% for m in messages %}"
        "{% if m.role == 'assistant' %}"
        "{% if m.content %}<|assistant|>\n{{ m.content }}{% endif %}"
        "{% for c in m.tool_calls or [] %}<|assistant|>{{ c.function.name }}\n"
        "{{ c.function.arguments | tojson }}{% endfor %}"
        "{% elif m.role == 'tool' %}<|observation|>\n{{ m.content }}"
        "{% else %}<|{{ m.role }}|>\n{{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "parts": (
        "{% if tools %}<|begin|>system<|content|>{{ tools | tojson }}<|end|>{% endif %}"
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% if m.reasoning_content %}<|begin|>assistant<|think|>{{ m.reasoning_content }}<|end|>"
        "{% endif %}{% if m.content %}<|begin|>assistant<|content|>{{ m.content }}<|end|>"
        "{% endif %}"
        "{% if m.tool_calls %}<|begin|>assistant<|tool_calls|>{% for c in m.tool_calls %}"
        "<|call:begin|>{{ c.id }}<|call:name|>{{ c.function.name }}<|call:args|>"
        "{{ c.function.arguments | tojson }}<|call:end|>{% endfor %}<|calls|>{% endif %}"
        "{% else %}<|begin|>{{ m.role }}<|content|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|begin|>assistant{% endif %}"
    ),
    "response-tags": _chatml(
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}"
        "{% if m.content %}<response>\n{{ m.content }}\n</response>\n{% endif %}"
        "{% for c in m.tool_calls or [] %}\n<tool_call>\n"
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
        "\n</tool_call>\n{% endfor %}"
    ),
    "inner-thought": _chatml(
        "{% if m.thoughts %}<|inner_prefix|>{{ m.thoughts }}<|inner_suffix|>{% endif %}"
        + _calls("<|tools_prefix|>", _JSON, ", ", "<|tools_suffix|>")
    ),
    # Thinking that only prompts show.
    "prompt-opens": _chatml("{{ m.content }}", prompt="<think>\n"),
    "prompt-switches": _chatml(
        "{{ m.content }}", prompt="{% if not thinking %}<think>\n\n</think>\n\n{% endif %}"
    ),
    "thought-in-content": (
        "{% for m in messages %}<|turn|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
        "<think>\n\n{% endif %}{{ m.content }}\n<|over|>\n\n{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant\n<think>\n\n{% endif %}"
    ),
    "thought-in-words": (
        "{% for m in messages %}{% if m.role == 'assistant' %}\n<|begin_assistant|>\n"
        "{% if m.reasoning_content and loop.last %}{{ m.reasoning_content }}"
        "\n[BEGIN FINAL RESPONSE]\n{% endif %}{{ m.content }}"
        "{% if m.tool_calls %}\n<tool_calls>[{% for c in m.tool_calls %}"
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}'
        '{% if not loop.last %}, "id": "{{ c.id }}"{% endif %}}'
        "{% if not loop.last %}, {% endif %}{% endfor %}]</tool_calls>{% endif %}"
        "{% if not loop.last %}\n<|end|>\n{% endif %}"
        "{% else %}<|begin_{{ m.role }}|>\n{{ m.content }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}\n<|begin_assistant|>\nHere are my steps:\n{% endif %}"
    ),
    "blocks": _chatml(
        "{% if m.content is string %}{{ m.content }}{% elif m.content %}"
        "{% for b in m.content.blocks %}{% if b.type == 'thoughts' %}"
        "<|inner_prefix|>{{ b.text }}<|inner_suffix|>{% else %}{{ b.text }}{% endif %}{% endfor %}"
        "{% endif %}{% if m.tool_calls %}<|tools_prefix|>[{% for c in m.tool_calls %}"
        '{"{{ c.function.name }}": {{ c.function.arguments | tojson }}}'
        "{% if not loop.last %}, {% endif %}{% endfor %}]<|tools_suffix|>{% endif %}",
        tools="{% for t in tools %}{{ t.name }}{% endfor %}",
    ),
    "thought-parts": _chatml(
        "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
        "{% if p.type == 'thinking' %}[THINK]{{ p.thinking }}[/THINK]"
        "{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}"
        "{% for c in m.tool_calls or [] %}[TOOL_CALLS]{{ c.function.name }}"
        "[ARGS]{{ c.function.arguments | tojson }}{% endfor %}"
    ),
    "user-opens": (
        "{% if tools %}{{ tools | tojson }}{% endif %}"
        "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}"
        "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
        "{% set thinks = enable_thinking | default(true) %}"
        "{% for m in messages %}{% if m.role == 'assistant' %}"
        "{% if loop.index0 > ns.last and thinks %}{{ m.reasoning_content or '' }}</think>"
        "{% endif %}"
        "{{ m.content or '' }}{% if m.tool_calls %}\n\n<calls>{% for c in m.tool_calls %}\n"
        '<invoke name="{{ c.function.name }}">\n{% for k, v in c.function.arguments.items() %}'
        '{% if not loop.first %}\n{% endif %}<parameter name="{{ k }}" '
        "string=\"{{ 'true' if v is string else 'false' }}\">" + _NUMBER_OR_TEXT + "</parameter>"
        "{% endfor %}\n</invoke>{% endfor %}\n</calls>{% endif %}<|eos|>"
        "{% else %}<|{{ m.role }}|>{{ m.content }}{% if m.role == 'user' %}<|assistant|>"
        "{{ '<think>' if thinks and loop.index0 == ns.last else '</think>' }}{% endif %}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|user|>\n<|assistant|>"
        "{{ '<think>' if thinks else '</think>' }}{% endif %}"
    ),
    "plain-words": (
        "{% for m in messages %}{% if m.role == 'user' %}USER: {{ m.content }}"
        "{% elif m.role == 'assistant' %} ASSISTANT: {{ m.content }}</s>"
        "{% else %}{{ m.content }} {% endif %}{% endfor %}"
        "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
    ),
    "separated": (
        "{% for m in messages %}{% if m.role == 'assistant' %} <sep> assistant: "
        "{{ m.content or '' }}"
        "{% for c in m.tool_calls or [] %}<tool_call>\n"
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
        "\n</tool_call>{% endfor %} <sep> {% else %}human: {{ m.content }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %} <sep> assistant:{% endif %}"
    ),
    "writes-to-messages": _chatml(
        "{% set m.seen = true %}" + _calls("", "<call>" + _JSON + "</call>"),
    ),
    "python-raw": _chatml(
        _calls(
            "<|call_start|>[",
            "{{ f.name }}({% for k, v in f.arguments | items %}{{ k }}="
            "{% if v is string %}'{{ v }}'{% elif v is mapping %}{{ v | tojson }}"
            "{% else %}{{ v }}{% endif %}{% if not loop.last %}, {% endif %}{% endfor %})",
            ", ",
            "]<|call_end|>",
        )
    ),
    "last-turn-apart": (
        "{% if tools %}<S>System\n{{ tools | tojson }}\n{% endif %}"
        "{% set last = messages[-1] if messages[-1].role == 'assistant' else none %}"
        "{% for m in (messages[:-1] if last else messages) %}"
        "{% if m.role == 'assistant' %}<S>Assistant\n{{ (m.content or '') | trim }}"
        "{% if m.tool_calls %}<TOOLCALL>[{% for c in m.tool_calls %}"
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
        "{{ ', ' if not loop.last else '' }}{% endfor %}]</TOOLCALL>{% endif %}\n<E>\n\n"
        "{% else %}<S>{{ m.role }}\n{{ m.content }}\n{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<S>Assistant\n<think>\n\n{% elif last %}"
        "{% if last.content %}<S>Assistant\n<think>\n\n{{ last.content | trim }}\n<E>\n\n"
        "{% endif %}{% if last.tool_calls %}<S>Assistant\n<TOOLCALL>["
        "{% for c in last.tool_calls %}"
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
        "{{ ', ' if not loop.last else '' }}{% endfor %}]</TOOLCALL>\n<E>\n\n{% endif %}"
        "{% endif %}"
    ),
    "section-always-thinks": (
        "{% if tools %}<|sys|>tools<|mid|>{{ tools | tojson }}<|im_end|>{% endif %}"
        "{% for m in messages %}<|im_{{ m.role }}|>{{ m.name or m.role }}<|mid|>"
        "{% if m.role == 'assistant' %}<think>{{ m.reasoning_content or '' }}</think>"
        "{{ m.content or '' }}{% if m.tool_calls %}<|section_begin|>{% for c in m.tool_calls %}"
        "<|call_begin|>{{ c.id }}<|argument_begin|>{{ c.function.arguments | tojson }}<|call_end|>"
        "{% endfor %}<|section_end|>{% endif %}{% else %}{{ m.content }}{% endif %}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_assistant|>assistant<|mid|>{% endif %}"
    ),
    # Picky about messages.
    "alternating": (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('turns must alternate') }}{% endif %}"
        "[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    ),
    "content-parts": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% for p in m.content %}{{ p.text }}{% endfor %}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    "tools-without-calls": (
        "{% if tools %}<|system|>Tools: <|tool|>{{ tools | tojson }}<|/tool|><|end|>{% endif %}"
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
}
