"""Judges of a grammar: a small matcher for GBNF text, llguidance for Lark, jsonschema for truth."""

from __future__ import annotations

import json
from functools import lru_cache

import jsonschema
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

import grammars
from grammars import charset, gbnf_parser
from grammars.nodes import Chars, Choice, Repeat, Rule, Sequence, Token

DEAD, OPEN, DONE = "rejected", "incomplete", "accepted"


class GbnfMatcher:
    """Sets of parse stacks over the parsed text. A stack is None (the end) or (node, rest)."""

    def __init__(self, text):
        self.cells = {}
        self.closures = {}
        root = gbnf_parser.parse(text)
        self.start = self.closure(self.cell(root, None))

    def cell(self, node, rest):
        key = (id(node), id(rest))
        if key not in self.cells:
            self.cells[key] = (node, rest)
        return self.cells[key]

    def closure(self, stack):
        """The stacks that wait for a character, or None for the end, reachable from one."""
        if id(stack) in self.closures:
            return self.closures[id(stack)]
        out, seen, todo = [], set(), [stack]
        while todo:
            top = todo.pop()
            if id(top) in seen:
                continue
            seen.add(id(top))
            if top is None or isinstance(top[0], Chars):
                out.append(top)
            else:
                todo.extend(self.expand(*top))
        self.closures[id(stack)] = out
        return out

    def expand(self, node, rest):
        match node:
            case Rule(_, body) | Token(body):
                return [self.cell(body, rest)]
            case Choice(options):
                return [self.cell(o, rest) for o in options]
            case Sequence(items):
                for item in reversed(items):
                    rest = self.cell(item, rest)
                return [rest]
            case Repeat(body, low, high):
                out = [] if low else [rest]
                if high is None or high > 0:
                    out.append(self.cell(body, self.again(node, rest)))
                return out
        raise TypeError(node)

    def again(self, node, rest):
        low, high = max(0, node.min - 1), None if node.max is None else node.max - 1
        if high == 0:
            return rest
        if (low, high) == (node.min, node.max):
            return self.cell(node, rest)
        return self.cell(_repeat(node.body, low, high), rest)

    def judge(self, text):
        stacks = self.start
        for char in text:
            new = {}
            for stack in stacks:
                if stack is not None and charset.contains(stack[0].ranges, ord(char)):
                    new.update((id(s), s) for s in self.closure(stack[1]))
            stacks = list(new.values())
            if not stacks:
                return DEAD
        return DONE if any(s is None for s in stacks) else OPEN


_repeats = {}


def _repeat(body, low, high):
    return _repeats.setdefault((id(body), low, high), Repeat(body, low, high))


class _Bytes:
    """A vocabulary of the 256 bytes."""

    tokens = [bytes([b]) for b in range(256)] + [b"<eos>"]
    eos_token_id, bos_token_id, special_token_ids = 256, None, [256]

    def __call__(self, data):
        return list(data.encode() if isinstance(data, str) else data)


@lru_cache(maxsize=1)
def byte_tokenizer():
    return LLTokenizer(TokenizerWrapper(_Bytes()), slices=[])


class LarkMatcher:
    def __init__(self, text):
        self.matcher = LLMatcher(byte_tokenizer(), text, log_level=0)
        assert not self.matcher.is_error(), self.matcher.get_error()

    def judge(self, text):
        matcher = self.matcher.deep_copy()
        data = list(text.encode())
        taken = matcher.try_consume_tokens(data)
        assert not matcher.is_error(), matcher.get_error()
        if taken < len(data):
            return DEAD
        return DONE if matcher.is_accepting() else OPEN


class Judges:
    """Both texts of one grammar; asserts that they agree."""

    def __init__(self, compiled):
        self.gbnf, self.lark = GbnfMatcher(compiled.gbnf), LarkMatcher(compiled.lark)

    def judge(self, text):
        verdict = self.gbnf.judge(text)
        assert self.lark.judge(text) == verdict, f"GBNF says {verdict}, Lark does not: {text!r}"
        return verdict


def is_valid(schema, value):
    cls = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    return cls(schema, format_checker=cls.FORMAT_CHECKER).is_valid(value)


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def check(schema, accepted=(), rejected=(), incomplete=()):
    """JSON texts that the grammar of `schema` accepts, rejects, and may still complete.

    What is accepted must be valid for jsonschema too, so that a row of a table cannot be wrong.
    """
    judges = Judges(grammars.compile(schema))
    for text in accepted:
        assert is_valid(schema, json.loads(text)), f"{text} is no valid instance"
        assert judges.judge(text) == DONE, text
    for text in rejected:
        assert judges.judge(text) != DONE, text
    for text in incomplete:
        assert judges.judge(text) == OPEN, text


def refused(schema, keyword=None, kind=grammars.UnsupportedSchema):
    """The refusal of a schema."""
    try:
        grammars.compile(schema)
    except kind as error:
        assert error.path.startswith("$") and error.reason
        assert keyword is None or error.keyword == keyword
        return error
    raise AssertionError("the schema was compiled")
