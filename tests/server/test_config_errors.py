"""Settings that are refused: where they stand, what is wrong, what may have been meant."""

from __future__ import annotations

import pytest

from server.config import ConfigError


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--port", "65536"], "--port: '65536' is not allowed, expected a whole number from 0"),
        (["--port"], "argument --port: expected one argument"),
        (["--prot", "1"], "unknown argument --prot; did you mean --port?"),
        (["--split-mode", "rows"], "--split-mode: 'rows' is not allowed, expected one of none,"),
        (["--n-gpu-layers", "-1"], "--n-gpu-layers: '-1' is not allowed, expected a number of"),
        (["--tensor-split", "0,0"], "--tensor-split: '0,0' is not allowed"),
        (["--keepalive", "nan"], "--keepalive: 'nan' is not allowed, expected a number, 0.1"),
        (["--lora", "a=inf"], "--lora: 'a=inf' is not allowed, expected a path, path=scale, or"),
        (["--model", "no.gguf"], "--model: no.gguf is no file and no model of models.toml (tiny)"),
        (["--config", "no.toml"], "--config: no.toml is no file"),
        (["--api-key-file", "no"], "--api-key-file: cannot read no: No such file"),
        (["--chat-template-file", "no"], "--chat-template-file: cannot read no: No such file"),
        (["--ubatch-size", "4096"], "ubatch_size is 4096, which is more than batch_size 2048"),
        (
            ["--type-v", "q4_0", "--flash-attention", "off"],
            "--type-v: q4_0 needs flash attention, which is off",
        ),
    ],
)
def test_bad_flags(load, argv, message):
    with pytest.raises(ConfigError) as caught:
        load(*argv)
    assert str(caught.value).startswith(message)


def test_bad_environment_names_the_variable(load):
    with pytest.raises(ConfigError, match=r"^INGLE_PARALLEL: '0' is not allowed, expected a whole"):
        load(INGLE_PARALLEL="0")
    with pytest.raises(
        ConfigError, match=r"^INGLE_KV_UNIFIED: 'maybe' is not allowed, expected on"
    ):
        load(INGLE_KV_UNIFIED="maybe")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        (
            "[models.m]\nhf='repo'",
            "models.toml [models.m] hf: 'repo' is not allowed, expected",
        ),
        ("[models.m]\npath='a'\nhf='u/r'", "[models.m] needs one of path, package and hf"),
        (
            "[models.m]\npath='a'\nfallbacks=['n']\n[models.nn]\npath='b'",
            "[models.m] fallbacks: there is no model n; did you mean nn?",
        ),
        (
            "[models.m]\npath='a'\nkeep_alive='soon'",
            "models.toml [models.m] keep_alive: 'soon' is not allowed, expected seconds, a time",
        ),
        (
            "[models.m]\npath='a'\nlora=[{path='l', scle=1}]",
            "models.toml [models.m] lora has an unknown key scle; did you mean scale?",
        ),
        ("[models.m]\npath='a'\nlora=[{name='l'}]", "models.toml [models.m] lora needs a path"),
        ("[models.m]\npath='a'\nlora=[{path='l', name='a b'}]", "models.toml [models.m] lora: 'a"),
        ("[server]\nmemory_budget='much'", "models.toml [server] memory_budget: 'much' is not"),
        ("[server]\nprot = 1", "models.toml [server] has an unknown key prot; did you mean port?"),
        ("[server]\nthreads = 1", "models.toml [server] has an unknown key threads"),
        ("[defaults]\nparalel = 1", "models.toml [defaults] has an unknown key paralel; did you"),
        ("[defaults]\nalias = 'x'", "models.toml [defaults] has an unknown key alias"),
        ("[serve]\nport = 1", "models.toml has an unknown key serve; did you mean server?"),
        ("[server]\nport = 99999", "models.toml [server] port: '99999' is not allowed, expected"),
        ("[server]\nport = [1]", "models.toml [server] port: [1] is not allowed, expected a whole"),
        ("[server]\nport", "models.toml cannot be read: "),
        ("server = 1", "models.toml: server must be a table"),
        ("[models]\nm = 1", "models.toml: models.m must be a table"),
        ("[models.m]\nparallel = 1", "[models.m] needs one of path, package and hf"),
        ("[models.m]\npath='a'\npackage='b'", "[models.m] needs one of path, package and hf"),
        ("[models.m]\npackage='no-such'", "models.toml [models.m] package: the package no-such"),
        (
            "[models.m]\npath='a'\nalias='n'\n[models.n]\npath='b'",
            "two models are called n",
        ),
    ],
)
def test_bad_models_toml(load, toml, message):
    with pytest.raises(ConfigError) as caught:
        load(toml=toml)
    assert str(caught.value).startswith(message)
