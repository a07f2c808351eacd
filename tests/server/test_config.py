"""Flags over environment over models.toml over defaults, and what is refused."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest

from engine.request import SamplingParams
from engine.settings import ALL_LAYERS, AUTO_LAYERS, LoraAdapter, ModelSettings
from server.config import (
    ConfigError,
    ServerConfig,
    initial_models,
    load_config,
    misspelt_variables,
)
from server.hub import HubSource
from server.options import BY_NAME, OPTIONS
from server.prepare import RANGES
from server.sources import read_models_file


def settings_of(config: ServerConfig) -> ModelSettings:
    return config.models[0].settings


def test_defaults_are_those_of_the_structs(load, gguf):
    config = load()
    assert (config.host, config.port, config.api_keys, config.probe) == (
        "127.0.0.1",
        8080,
        (),
        True,
    )
    assert config.models[0].name == "tiny"
    assert settings_of(config) == ModelSettings(path=Path(gguf.name))


def test_the_checkouts_default_is_the_embedded_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config([], {})
    assert [model.name for model in config.models] == ["smollm2-135m-instruct"]
    assert settings_of(config).path.suffix == ".gguf"
    assert settings_of(config).path.is_file()


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "expected"),
    [
        ([], {}, "", 8080),
        ([], {}, "[server]\nport = 1", 1),
        ([], {"INGLE_PORT": "2"}, "[server]\nport = 1", 2),
        (["--port", "3"], {"INGLE_PORT": "2"}, "[server]\nport = 1", 3),
        ([], {"INGLE_PORT": ""}, "[server]\nport = 1", 1),
    ],
)
def test_precedence_of_a_server_setting(load, flags, environ, toml, expected):
    assert load(*flags, toml=toml, **environ).port == expected


@pytest.mark.parametrize(
    ("flags", "environ", "toml", "expected"),
    [
        ([], {}, "[defaults]\nthreads = 1", 1),
        ([], {}, "[defaults]\nthreads = 1\n[models.a]\npath='tiny.Q4_0.gguf'\nthreads = 2", 2),
        ([], {"INGLE_THREADS": "3"}, "[models.a]\npath='tiny.Q4_0.gguf'\nthreads = 2", 3),
        (["--threads", "4"], {"INGLE_THREADS": "3"}, "[defaults]\nthreads = 1", 4),
    ],
)
def test_precedence_of_a_model_setting(load, flags, environ, toml, expected):
    assert settings_of(load(*flags, toml=toml, **environ)).threads == expected


@pytest.mark.parametrize(
    ("flag", "value", "field", "expected"),
    [
        ("context", "4096", "context", 4096),
        ("parallel", "8", "parallel", 8),
        ("max-queue", "0", "max_queue", 0),
        ("threads", "3", "threads", 3),
        ("batch-size", "512", "batch_size", 512),
        ("ubatch-size", "128", "ubatch_size", 128),
        ("max-stall", "0.5", "max_stall", 0.5),
        ("n-gpu-layers", "all", "n_gpu_layers", ALL_LAYERS),
        ("n-gpu-layers", "auto", "n_gpu_layers", AUTO_LAYERS),
        ("n-gpu-layers", "12", "n_gpu_layers", 12),
        ("main-gpu", "1", "main_gpu", 1),
        ("split-mode", "row", "split_mode", "row"),
        ("tensor-split", "3,1", "tensor_split", (3.0, 1.0)),
        ("type-k", "q8_0", "type_k", "q8_0"),
        ("type-v", "bf16", "type_v", "bf16"),
        ("flash-attention", "on", "flash_attention", True),
        ("flash-attention", "off", "flash_attention", False),
        ("flash-attention", "auto", "flash_attention", None),
        ("extra-bufts", "off", "use_extra_bufts", False),
        ("lora", "a.gguf", "lora", (LoraAdapter(Path("a.gguf")),)),
        ("lora", "red:a.gguf=0", "lora", (LoraAdapter(Path("a.gguf"), 0.0, "red"),)),
        ("lora", "x/y:a.gguf", "lora", (LoraAdapter(Path("x/y:a.gguf")),)),
        ("lora", "a=b.gguf=0.5", "lora", (LoraAdapter(Path("a=b.gguf"), 0.5),)),
    ],
)
def test_a_model_setting_by_flag_and_by_environment(load, flag, value, field, expected):
    by_flag = settings_of(load(f"--{flag}", value))
    variable = "INGLE_" + flag.upper().replace("-", "_")
    by_environment = settings_of(load(**{variable: value}))
    assert getattr(by_flag, field) == expected
    assert getattr(by_environment, field) == expected


@pytest.mark.parametrize(
    ("line", "field", "expected"),
    [
        ("n_gpu_layers = 3", "n_gpu_layers", 3),
        ('n_gpu_layers = "all"', "n_gpu_layers", ALL_LAYERS),
        ("tensor_split = [3, 1.5]", "tensor_split", (3.0, 1.5)),
        ("flash_attention = false", "flash_attention", False),
        ("kv_unified = true", "kv_unified", True),
        ("mmap = false", "use_mmap", False),
        ("mlock = true", "use_mlock", True),
    ],
)
def test_toml_values_may_have_their_own_types(load, line, field, expected):
    assert getattr(settings_of(load(toml=f"[defaults]\n{line}")), field) == expected


@pytest.mark.parametrize(("flag", "field"), [("kv-unified", "kv_unified"), ("mmap", "use_mmap")])
def test_switches_have_a_negative_form(load, flag, field):
    assert getattr(settings_of(load(f"--{flag}")), field) is True
    assert getattr(settings_of(load(f"--no-{flag}")), field) is False
    assert load("--no-probe").probe is False


def test_repeated_flags_and_lists_gather(load, gguf):
    assert load("--api-key", "a", "--api-key", "b").api_keys == ("a", "b")
    assert load(INGLE_API_KEY="a, b").api_keys == ("a", "b")
    config = load(toml=f'[models.m]\npath = "{gguf.name}"\nalias = ["x", "y"]\nlora = ["l.gguf"]')
    assert config.models[0].aliases == ("x", "y")
    assert settings_of(config).lora == (LoraAdapter(Path("l.gguf")),)


def test_keys_from_a_file_join_the_others(load):
    Path("keys").write_text("# ours\nfirst\n\n second \n")
    assert load("--api-key", "a", "--api-key-file", "keys").api_keys == ("a", "first", "second")


def test_paths_in_models_toml_are_relative_to_it(load, tmp_path):
    elsewhere = tmp_path / "sub"
    elsewhere.mkdir()
    (elsewhere / "c.toml").write_text('[models.m]\npath = "m.gguf"\nlora = "l.gguf=2"')
    settings = settings_of(load("--config", str(elsewhere / "c.toml")))
    assert settings.path == elsewhere / "m.gguf"
    assert settings.lora == (LoraAdapter(elsewhere / "l.gguf", 2.0),)


def test_a_file_is_served_under_its_stem_with_shared_settings(load, gguf):
    config = load("--model", str(gguf), "--alias", "gpt-4", toml="[defaults]\nparallel = 2")
    assert (config.models[0].name, config.models[0].aliases) == ("tiny.Q4_0", ("gpt-4",))
    assert settings_of(config).parallel == 2
    assert len(config.models) == 1


def test_the_named_model_comes_first_and_alone_gets_the_alias(load, gguf):
    toml = f'[models.a]\npath="{gguf.name}"\n[models.b]\npath="{gguf.name}"'
    config = load("--model", "b", "--alias", "x", "--parallel", "1", toml=toml)
    assert [(model.name, model.aliases) for model in config.models] == [("b", ("x",)), ("a", ())]
    assert {model.settings.parallel for model in config.models} == {1}


def test_chat_template_text_is_read(load):
    Path("t.jinja").write_text("{{ messages }}")
    assert load("--chat-template-file", "t.jinja").models[0].chat_template == "{{ messages }}"


def test_what_the_user_knows_better_than_the_template(load, gguf):
    toml = f'[models.m]\npath = "{gguf.name}"\nthought = ["<r>", "</r>"]\nends = "<|x|>"\n'
    override = load(toml=toml + "generic_calls = true").models[0].format
    assert override.thought == ("<r>", "</r>")
    assert override.ends == ("<|x|>",)
    assert override.generic_calls
    with pytest.raises(ConfigError, match="two texts"):
        load(toml=f'[models.m]\npath = "{gguf.name}"\nthought = ["<r>"]')


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("0", 0), ("-1", inf), ("forever", inf)],
)
def test_keep_alive(load, text, seconds):
    assert load(f"--keep-alive={text}").models[0].keep_alive == seconds
    assert load(INGLE_KEEP_ALIVE=text).models[0].keep_alive == seconds
    assert load().models[0].keep_alive is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("1 B", 1),
        ("1.5GB", 1_500_000_000),
        ("2GiB", 2 << 30),
        ("3m", 3_000_000),
        ("50%", 2000),
    ],
)
def test_memory_budget(load, monkeypatch, text, size):
    monkeypatch.setattr("server.kinds.total_memory", lambda: 4000)
    assert load(f"--memory-budget={text}").memory_budget == size
    assert load(toml=f"[server]\nmemory_budget = '{text}'").memory_budget == size


def test_many_models(load, gguf):
    toml = f"""
        [defaults]
        temperature = 0.5
        [models.a]
        path = "{gguf.name}"
        fallbacks = ["b", "x"]
        [models.b]
        hf = "user/repo:Q4_K_M"
        preload = true
        keep_alive = -1
        top_p = 0.9
        repetition_penalty = 1.1
        [models.c]
        path = "{gguf.name}"
        alias = "x"
        lora = [{{ name = "red", path = "r.gguf", scale = 0.5 }}, {{ path = "g.gguf" }}, "h.gguf=2"]
    """
    a, b, c = (config := load(toml=toml)).models
    assert [model.name for model in initial_models(config.models)] == ["a", "b"]
    assert a.fallbacks == ("b", "x")
    assert a.sampling == SamplingParams(temperature=0.5)
    assert b.sampling == SamplingParams(temperature=0.5, top_p=0.9, repetition_penalty=1.1)
    assert b.hub == HubSource("user/repo", "Q4_K_M")
    assert b.keep_alive == inf
    assert c.settings.lora == (
        LoraAdapter(Path("r.gguf"), 0.5, "red"),
        LoraAdapter(Path("g.gguf")),
        LoraAdapter(Path("h.gguf"), 2.0),
    )


def test_first_model_may_wait_too(load, gguf):
    config = load(toml=f'[models.a]\npath = "{gguf.name}"\npreload = false')
    assert initial_models(config.models) == []


def test_model_from_the_hub_by_flag(load):
    [model] = load("--model", "hf:user/Some-GGUF:Q8_0").models
    assert (model.name, model.hub) == ("Some-GGUF:Q8_0", HubSource("user/Some-GGUF", "Q8_0"))
    with pytest.raises(ConfigError, match="--model: 'nonsense' is not allowed, expected user/repo"):
        load("--model", "hf:nonsense")


SAMPLING = ("temperature", "top_p", "top_k", "min_p")
PENALTIES = ("presence_penalty", "frequency_penalty", "repetition_penalty")


@pytest.mark.parametrize("name", [*SAMPLING, *PENALTIES])
def test_default_sampling_has_the_limits_of_requests(load, name):
    allowed, parse = RANGES[name], BY_NAME[name].kind.parse
    for value in (-3, -2, -1, 0, 0.5, 1, 2, 3):
        # Whole numbers for top_k; its -1 is a request's other word for 0.
        if name == "top_k" and (value == 0.5 or value == -1):
            continue
        try:
            parse(str(value))
        except ValueError:
            assert value not in allowed
        else:
            assert value in allowed


def test_a_quantized_v_cache_turns_flash_attention_on(load):
    assert settings_of(load("--type-v", "q8_0")).flash_attention is True


def test_every_flag_is_in_the_help_with_its_variable(load, capsys):
    with pytest.raises(SystemExit) as left:
        load("--help")
    assert left.value.code == 0
    text = capsys.readouterr().out
    for option in OPTIONS:
        if option.flag:
            assert option.flag_name in text
            assert option.env_name in text


def test_misspelt_variables_are_pointed_out_and_strangers_are_not():
    environ = {"INGLE_THREAD": "1", "INGLE_THREADS": "1", "INGLE_8080_TCP_ADDR": "x", "PATH": "y"}
    assert misspelt_variables(environ) == [
        "INGLE_THREAD is no setting; did you mean INGLE_THREADS?"
    ]


def test_the_readmes_example_has_every_key_of_a_model(tmp_path):
    readme = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    example = readme.partition("### Many models")[2].partition("```toml\n")[2].partition("```")[0]
    path = tmp_path / "models.toml"
    path.write_text(example)
    models = read_models_file(path).models
    shown = {key for model in models.values() for key in model}
    assert shown == {option.name for option in OPTIONS if option.scope != "server"}
