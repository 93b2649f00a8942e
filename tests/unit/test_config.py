"""models.toml's text becomes model profiles: defaults, names, and the five profiles that the repository ships."""

import pytest

from orchestrator import config, versions
from orchestrator.profiles import Profile
from tests.unit.values import ROOT, VERSIONS, profile, profiles


def shipped() -> dict[str, Profile]:
    known = versions.load((ROOT / "docker/vllm/versions.toml").read_text(encoding="utf-8"))
    return config.load((ROOT / "models.toml").read_text(encoding="utf-8"), known)


@pytest.mark.parametrize(
    ("name", "model", "length", "dtype"),
    [
        ("qwen-14b", "Qwen/Qwen2.5-14B-Instruct", 16384, None),
        ("deepseek-14b", "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", 32768, None),
        ("qwen-32b-awq", "Qwen/Qwen2.5-32B-Instruct-AWQ", 16384, "half"),
        ("qwq-32b-awq", "Qwen/QwQ-32B-AWQ", 16384, "half"),
    ],
)
def test_the_repository_ships_the_four_models_of_two_gpus(
    name: str, model: str, length: int, dtype: str | None
) -> None:
    found = shipped()[name]
    assert (found.model, found.max_model_len, found.dtype) == (model, length, dtype)
    assert (found.gpus, found.tensor_parallel_size, found.image) == ([0, 1], 2, "cuda")
    assert (found.served_model_name, found.aliases) == (name, [model])
    assert (found.enforce_eager, found.quantization, found.pull) == (False, None, True)


def test_the_repository_ships_a_demo_that_needs_no_gpu() -> None:
    found = shipped()["demo"]
    assert (found.image, found.gpus, found.tensor_parallel_size) == ("cpu", [], 1)
    assert (found.local, found.served_model_name) == (True, "demo")


def test_the_repository_ships_five_profiles_in_this_order() -> None:
    assert list(shipped()) == ["qwen-14b", "deepseek-14b", "qwen-32b-awq", "qwq-32b-awq", "demo"]


def test_an_entry_that_says_the_least_gets_every_default() -> None:
    assert profiles('[models.a]\nmodel = "org/a"\ngpus = [0]')["a"].model_dump() == {
        "name": "a",
        "model": "org/a",
        "served_model_name": "a",
        "aliases": [],
        "source": "modelscope",
        "revision": None,
        "gpus": [0],
        "tensor_parallel_size": 1,
        "max_model_len": None,
        "gpu_memory_utilization": None,
        "dtype": None,
        "quantization": None,
        "enforce_eager": False,
        "reasoning_parser": None,
        "tool_call_parser": None,
        "image": "cuda",
        "vllm": None,
        "ready_timeout": 900,
        "sleep": "off",
        "ttl": None,
        "preload": False,
        "shm_size": "8gb",
        "pull": True,
        "args": {},
        "env": {},
    }


def test_every_key_of_defaults_holds_for_an_entry_that_does_not_say_it() -> None:
    found = profiles("""
        [defaults]
        source = "huggingface"
        revision = "v1"
        gpus = [2, 3]
        tensor_parallel_size = 2
        max_model_len = 4096
        gpu_memory_utilization = 0.8
        dtype = "half"
        quantization = "awq"
        enforce_eager = true
        reasoning_parser = "deepseek_r1"
        tool_call_parser = "hermes"
        image = "cuda"
        vllm = "0.7.3"
        ready_timeout = 60
        sleep = "off"
        ttl = 600
        preload = true
        shm_size = "1g"
        pull = false
        args = { max-num-seqs = 4 }
        env = { A = "1" }
        [models.a]
        model = "org/a"
        """)["a"]
    assert found.model_dump(exclude={"name", "model", "served_model_name", "aliases"}) == {
        "source": "huggingface",
        "revision": "v1",
        "gpus": [2, 3],
        "tensor_parallel_size": 2,
        "max_model_len": 4096,
        "gpu_memory_utilization": 0.8,
        "dtype": "half",
        "quantization": "awq",
        "enforce_eager": True,
        "reasoning_parser": "deepseek_r1",
        "tool_call_parser": "hermes",
        "image": "cuda",
        "vllm": "0.7.3",
        "ready_timeout": 60,
        "sleep": "off",
        "ttl": 600,
        "preload": True,
        "shm_size": "1g",
        "pull": False,
        "args": {"max-num-seqs": 4},
        "env": {"A": "1"},
    }


def test_what_an_entry_says_beats_defaults_even_when_it_says_the_usual() -> None:
    found = profiles("""
        [defaults]
        gpus = [0, 1]
        enforce_eager = true
        max_model_len = 4096
        pull = false
        vllm = "0.7.3"
        [models.a]
        model = "org/a"
        gpus = [1]
        enforce_eager = false
        max_model_len = 8192
        pull = true
        vllm = "0.32.0"
        """)["a"]
    assert (found.gpus, found.enforce_eager, found.max_model_len) == ([1], False, 8192)
    assert (found.pull, found.vllm) == (True, "0.32.0")


def test_args_and_env_of_defaults_and_entry_are_merged_by_key_and_the_entry_wins() -> None:
    found = profiles("""
        [defaults]
        gpus = [0]
        args = { max-num-seqs = 4, seed = 1 }
        env = { A = "defaults", B = "defaults" }
        [models.a]
        model = "org/a"
        args = { seed = 2, block-size = 16 }
        env = { B = "entry", C = "entry" }
        [models.b]
        model = "org/b"
        """)
    assert list(found["a"].args.items()) == [("max-num-seqs", 4), ("seed", 2), ("block-size", 16)]
    assert list(found["a"].env.items()) == [("A", "defaults"), ("B", "entry"), ("C", "entry")]
    assert (found["b"].args, found["b"].env) == ({"max-num-seqs": 4, "seed": 1}, {"A": "defaults", "B": "defaults"})


def test_a_list_of_an_entry_takes_the_place_of_the_list_of_defaults() -> None:
    found = profiles('[defaults]\ngpus = [0, 1]\n[models.a]\nmodel = "org/a"\ngpus = [1]')
    assert found["a"].gpus == [1]


def test_a_whole_number_is_a_share_of_memory_too() -> None:
    found = profiles('[models.a]\nmodel = "org/a"\ngpus = [0]\ngpu_memory_utilization = 1')
    assert found["a"].gpu_memory_utilization == 1.0


def test_profiles_keep_the_order_of_the_file() -> None:
    text = "".join(f'[models.{name}]\nmodel = "org/{name}"\ngpus = [0]\n' for name in ("zeta", "alpha", "m-2"))
    assert list(profiles(text)) == ["zeta", "alpha", "m-2"]


def test_clients_send_the_served_model_name_or_an_alias_and_not_the_profile_name_besides() -> None:
    found = profile(served_model_name="qwen", aliases=["gpt-4", "Qwen/Qwen2.5-14B-Instruct"])
    assert found.names == ["qwen", "gpt-4", "Qwen/Qwen2.5-14B-Instruct"]


def test_names_may_hold_chinese_spaces_and_slashes() -> None:
    found = profiles('[models.a]\nmodel = "org/a"\ngpus = [0]\nserved_model_name = "千问 14b"\naliases = ["org/a"]')
    assert found["a"].names == ["千问 14b", "org/a"]


@pytest.mark.parametrize(("name", "variable"), [("demo", "DEMO"), ("qwen-32b-awq", "QWEN_32B_AWQ")])
def test_a_profile_has_compose_variables_that_begin_with_its_name(name: str, variable: str) -> None:
    assert profile(name=name).variable == variable


@pytest.mark.parametrize(
    ("model", "local"),
    [
        ("Qwen/Qwen2.5-14B-Instruct", False),
        ("org-1/name_2.x", False),
        ("./docker/demo/model", True),
        ("/data/models/mine", True),
    ],
)
def test_a_model_is_a_folder_when_it_begins_with_a_dot_slash_or_a_slash(model: str, local: bool) -> None:
    text = f'[models.a]\nmodel = "{model}"\ngpus = [0]'
    assert profiles(text)["a"].local is local


@pytest.mark.parametrize(
    ("said", "branch"),
    [
        ("", "master"),
        ('source = "huggingface"', "main"),
        ('source = "huggingface"\nrevision = "v1"', "v1"),
        ('revision = "main"', "main"),
    ],
)
def test_a_revision_that_is_not_said_is_the_hubs_own_branch(said: str, branch: str) -> None:
    assert profiles(f'[models.a]\nmodel = "org/a"\ngpus = [0]\n{said}')["a"].branch == branch


@pytest.mark.parametrize(
    ("said", "pulled"),
    [
        ('model = "org/a"', True),
        ('model = "org/a"\npull = false', False),
        ('model = "./a"', False),
        ('model = "./a"\nsource = "path"', False),
        ('model = "/a"\nsource = "path"', False),
    ],
)
def test_only_a_model_of_a_hub_is_pulled(said: str, pulled: bool) -> None:
    assert profiles(f"[models.a]\ngpus = [0]\n{said}")["a"].pulled is pulled


def test_line_ends_of_windows_do_not_matter() -> None:
    text = '[models.a]\nmodel = "org/a"\ngpus = [0]\n'
    assert config.load(text.replace("\n", "\r\n"), VERSIONS) == config.load(text, VERSIONS)
