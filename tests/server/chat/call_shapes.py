"""Templates that write calls, each in a notation of its own."""

from tests.server.chat.template_pieces import JSON, NUMBER_OR_TEXT, THINK, calls, chatml

CALL_SHAPES: dict[str, str] = {
    # JSON objects: between tags, in lists, with ids, wrapped, keyed by name, encoded.
    "tags": chatml(THINK + calls("", "\n<tool_call>\n" + JSON + "\n</tool_call>")),
    "list": chatml(calls("<TOOLCALL>[", JSON, ", ", "]</TOOLCALL>")),
    "list-words": chatml(calls(" functools[", JSON, ", ", "]")),
    "list-bare": chatml(calls("[", JSON, ", ", "]")),
    "object-bare": chatml(calls("", JSON, "; ")),
    "wrapped": chatml(
        calls("<calls>", '{"type": "function", "function": ' + JSON + "}", "\n", "</calls>")
    ),
    "with-id": chatml(
        calls(
            "<calls>[",
            '{"id": "{{ c.id }}", "name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}}',
            ", ",
            "]</calls>",
        )
    ),
    "id-last": chatml(
        calls(
            "<calls>[",
            '{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson }}, "id": "{{ c.id }}"}',
            ", ",
            "]</calls>",
        )
    ),
    "arguments-first": chatml(
        calls(
            "",
            '<call>{"arguments": {{ f.arguments | tojson }}, "name": "{{ f.name }}"}</call>',
        )
    ),
    "name-as-key": chatml(
        calls(
            "<|tools_prefix|>[",
            '{"{{ f.name }}": {{ f.arguments | tojson }}}',
            ", ",
            "]<|tools_suffix|>",
        )
    ),
    "encoded": chatml(
        calls(
            "",
            '<call>{"name": "{{ f.name }}", "arguments": {{ f.arguments | tojson | tojson }}}'
            "</call>",
        )
    ),
    "fenced-list": chatml(
        calls(
            "Action: ```json\n[\n",
            '    {\n        "tool_name": "{{ f.name }}",\n        "parameters": '
            "{{ f.arguments | tojson }}\n    }",
            ",\n",
            "\n]```",
        )
    ),
    "marker-only": chatml(calls("<|function_call|>", JSON)),
    # The name outside, then JSON.
    "attribute": chatml(calls("", "<function={{ f.name }}>{{ f.arguments | tojson }}</function>")),
    "fenced": chatml(
        calls(
            "<|calls_begin|>",
            "<|call_begin|>function<|sep|>{{ f.name }}\n```json\n{{ f.arguments | tojson }}\n```"
            "<|call_end|>",
            "\n",
            "<|calls_end|>",
        )
    ),
    "brackets": chatml(
        "{% if m.thinking %}[THINK]{{ m.thinking }}[/THINK]{% endif %}"
        + calls("", "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}")
    ),
    "id-before-name": chatml(
        calls(
            "<|tool_calls|>",
            "<|call:begin|>{{ c.id }}<|call:name|>{{ f.name }}<|call:args|>"
            "{{ f.arguments | tojson }}<|call:end|>",
            "",
            "<|calls|>",
        )
    ),
    "id-is-name": chatml(
        calls(
            "<|section_begin|>",
            "<|call_begin|>{{ c.id }}<|argument_begin|>{{ f.arguments | tojson }}<|call_end|>",
            "",
            "<|section_end|>",
        )
    ),
    "nested-tags": chatml(
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}"
        "<answer>\n{{ m.content or '' }}\n</answer>\n"
        "{% if m.tool_calls %}<tool_calls>\n{% for c in m.tool_calls %}"
        "<tool_call>{{ c.function.name }}<tool_sep>\n```json\n"
        "{{ c.function.arguments | tojson }}\n```\n</tool_call>\n{% endfor %}</tool_calls>"
        "{% endif %}"
    ),
    "tag-pairs": chatml(
        calls(
            "\n<use_tool>",
            "\n<server>any</server>\n<name>{{ f.name }}</name>\n<arguments>\n"
            "{{ f.arguments | tojson }}\n</arguments>",
            "",
            "\n</use_tool>",
        )
    ),
    "string-arguments": chatml(
        calls("", '<call>{"name": "{{ f.name }}", "arguments": {{ f.arguments }}}</call>')
    ),
    # Argument by argument.
    "parameters": chatml(
        THINK
        + calls(
            "",
            "\n<tool_call>\n<function={{ f.name }}>\n{% for k, v in f.arguments | items %}"
            "<parameter={{ k }}>\n" + NUMBER_OR_TEXT + "\n</parameter>\n{% endfor %}"
            "</function>\n</tool_call>",
        )
    ),
    "parameters-python": chatml(
        calls(
            "",
            "<tool_call><function={{ f.name }}>{% for k, v in f.arguments | items %}"
            "<parameter={{ k }}>{{ v }}</parameter>{% endfor %}</function></tool_call>",
        )
    ),
    "key-value": chatml(
        calls(
            "",
            "<tool_call>{{ f.name }}{% for k, v in f.arguments | items %}<arg_key>{{ k }}</arg_key>"
            "<arg_value>" + NUMBER_OR_TEXT + "</arg_value>{% endfor %}</tool_call>",
        ),
        prompt="{{ '<think>' if enable_thinking is not defined or enable_thinking "
        "else '</think>' }}",
    ),
    "invoke": chatml(
        calls(
            "<calls>\n",
            '<invoke name="{{ f.name }}">\n{% for k, v in f.arguments | items %}'
            '<parameter name="{{ k }}">' + NUMBER_OR_TEXT + "</parameter>\n{% endfor %}</invoke>\n",
            "",
            "</calls>",
        )
    ),
    "typed": chatml(
        calls(
            "\n\n<|X|calls>\n",
            '<|X|invoke name="{{ f.name }}">\n{% for k, v in f.arguments | items %}'
            "<|X|parameter name=\"{{ k }}\" string=\"{{ 'true' if v is string else 'false' }}\">"
            + NUMBER_OR_TEXT
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
        '"<|sep|>' + NUMBER_OR_TEXT + "<|close|>argument<|sep|>{% endfor %}"
        "<|close|>call<|sep|>{% endfor %}<|close|>tools<|sep|>{% endif %}"
        "{% else %}{{ m.content }}{% endif %}<|close|>message<|sep|><|end_of_msg|>{% endfor %}"
        "{% if add_generation_prompt %}"
        '<|open|>message role="assistant"<|sep|><|open|>think<|sep|>{% endif %}'
    ),
    # Python and other literals.
    "python": chatml(
        calls(
            "<|call_start|>[",
            "{{ f.name }}({% for k, v in f.arguments | items %}{{ k }}={{ v | tojson }}"
            "{% if not loop.last %}, {% endif %}{% endfor %})",
            ", ",
            "]<|call_end|>",
        )
    ),
    "python-lines": chatml(
        calls(
            "<function_calls>\n",
            "{{ f.name }}({% for k, v in f.arguments | items %}{{ k }}={{ v | tojson }}"
            "{% if not loop.last %}, {% endif %}{% endfor %})",
            "\n",
            "\n</function_calls>",
        )
    ),
    "python-bare": chatml(
        calls(
            "[",
            "{{ f.name }}({% for k, v in f.arguments | items %}{{ k }}={{ v | tojson }}"
            "{% if not loop.last %}, {% endif %}{% endfor %})",
            ", ",
            "]",
        )
    ),
    "keyed": chatml(
        calls(
            "",
            "<start_call>call:{{ f.name }}{{ '{' }}"
            "{% for k, v in f.arguments | dictsort %}{{ k }}:"
            "{{ '<escape>' + v + '<escape>' if v is string else v | tojson }}"
            "{% if not loop.last %},{% endif %}{% endfor %}}<end_call>",
        )
    ),
}
