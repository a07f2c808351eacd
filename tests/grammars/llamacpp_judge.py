"""A child process that asks llama.cpp's own grammar engine, on a model's vocabulary alone.

    python llamacpp_judge.py MODEL < jobs > verdicts

Each line is {"gbnf": text, "texts": [...]}; the answer is null where the grammar is refused, else
for each text one of accepted, incomplete, rejected. A child, since that engine aborts on some
grammars.
"""

import ctypes
import json
import sys

import llama_cpp as lib


def load(path):
    lib.llama_log_set(SILENT, None)
    params = lib.llama_model_default_params()
    params.vocab_only = True
    model = lib.llama_model_load_from_file(path.encode(), params)
    return lib.llama_model_get_vocab(model)


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def SILENT(_level, _text, _data):  # noqa: N802 - a constant that must outlive the call
    pass


def tokens_of(vocab, text):
    data = text.encode()
    out = (lib.llama_token * (len(data) + 8))()
    count = lib.llama_tokenize(vocab, data, len(data), out, len(out), False, False)
    assert count >= 0
    return out[:count]


def allows(sampler, token):
    one = (lib.llama_token_data * 1)(lib.llama_token_data(token, 0.0, 0.0))
    candidates = lib.llama_token_data_array(one, 1, -1, False)
    lib.llama_sampler_apply(sampler, ctypes.byref(candidates))
    return one[0].logit > -1e30


def judge(vocab, gbnf, text):
    sampler = lib.llama_sampler_init_grammar(vocab, gbnf.encode(), b"root")
    if not sampler:
        return None
    try:
        for token in tokens_of(vocab, text):
            if not allows(sampler, token):
                return "rejected"
            lib.llama_sampler_accept(sampler, token)
        done = allows(sampler, lib.llama_vocab_eos(vocab))
        return "accepted" if done else "incomplete"
    finally:
        lib.llama_sampler_free(sampler)


def main():
    vocab = load(sys.argv[1])
    for line in sys.stdin:
        job = json.loads(line)
        verdicts = [judge(vocab, job["gbnf"], text) for text in job["texts"]]
        sys.stdout.write(json.dumps(None if None in verdicts else verdicts) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
