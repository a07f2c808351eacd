"""Small templates of our own, one for each way in which public ones print calls and thoughts."""

from tests.server.chat.call_shapes import CALL_SHAPES
from tests.server.chat.template_pieces import JSON, NUMBER_OR_TEXT, calls, chatml

SHAPES: dict[str, str] = {
    **CALL_SHAPES,
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
    "response-tags": chatml(
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n{% endif %}"
        "{% if m.content %}<response>\n{{ m.content }}\n</response>\n{% endif %}"
        "{% for c in m.tool_calls or [] %}\n<tool_call>\n"
        '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}'
        "\n</tool_call>\n{% endfor %}"
    ),
    "inner-thought": chatml(
        "{% if m.thoughts %}<|inner_prefix|>{{ m.thoughts }}<|inner_suffix|>{% endif %}"
        + calls("<|tools_prefix|>", JSON, ", ", "<|tools_suffix|>")
    ),
    # Thinking that only prompts show.
    "prompt-opens": chatml("{{ m.content }}", prompt="<think>\n"),
    "prompt-switches": chatml(
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
    "blocks": chatml(
        "{% if m.content is string %}{{ m.content }}{% elif m.content %}"
        "{% for b in m.content.blocks %}{% if b.type == 'thoughts' %}"
        "<|inner_prefix|>{{ b.text }}<|inner_suffix|>{% else %}{{ b.text }}{% endif %}{% endfor %}"
        "{% endif %}{% if m.tool_calls %}<|tools_prefix|>[{% for c in m.tool_calls %}"
        '{"{{ c.function.name }}": {{ c.function.arguments | tojson }}}'
        "{% if not loop.last %}, {% endif %}{% endfor %}]<|tools_suffix|>{% endif %}",
        tools="{% for t in tools %}{{ t.name }}{% endfor %}",
    ),
    "thought-parts": chatml(
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
        "string=\"{{ 'true' if v is string else 'false' }}\">" + NUMBER_OR_TEXT + "</parameter>"
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
    "writes-to-messages": chatml(
        "{% set m.seen = true %}" + calls("", "<call>" + JSON + "</call>"),
    ),
    "python-raw": chatml(
        calls(
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
