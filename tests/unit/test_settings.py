"""The settings of this machine: which source wins, what an env file may look like, and what is wrong with a value."""

import re
from pathlib import Path

import pytest

from orchestrator import settings
from orchestrator.errors import ConfigError
from orchestrator.settings import KNOWN, Settings
from tests.unit.values import ROOT, VERSIONS, profile

DOLLAR = "holds a $, which readers of env files take differently; write the value out, or in single quotes"
BACKSLASH = "holds a backslash in single quotes; use none"
URL = "should be an address that begins with http:// or https://"
PASSWORD = "holds a password, which command lines and logs may show; use an address without one"
HASH = "holds a # that may begin a comment or not; put a space before a comment, and quotes around a value with #"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def of(**values: str) -> Settings:
    return Settings(values, ())


def test_with_no_file_the_shell_is_all_there_is(tmp_path: Path) -> None:
    assert settings.load(tmp_path, [], {"TANDEM_PORT": "9000"}) == Settings({"TANDEM_PORT": "9000"}, ())


def test_dot_env_is_read_and_not_passed_on_to_compose_which_reads_it_itself(tmp_path: Path) -> None:
    write(tmp_path, ".env", "TANDEM_PORT=9000\n")
    assert settings.load(tmp_path, [], {}) == Settings({"TANDEM_PORT": "9000"}, ())


def test_the_shell_beats_dot_env(tmp_path: Path) -> None:
    write(tmp_path, ".env", "A=file\nB=file\n")
    assert settings.load(tmp_path, [], {"A": "shell"}).values == {"A": "shell", "B": "file"}


def test_an_empty_variable_of_the_shell_beats_dot_env_too(tmp_path: Path) -> None:
    write(tmp_path, ".env", "TANDEM_PORT=9000\n")
    found = settings.load(tmp_path, [], {"TANDEM_PORT": ""})
    assert found.values == {"TANDEM_PORT": ""}
    assert found.get("TANDEM_PORT") == "8000"


def test_an_env_file_takes_the_place_of_dot_env(tmp_path: Path) -> None:
    write(tmp_path, ".env", "A=dot\nB=dot\n")
    named = write(tmp_path, "one.env", "A=one\n")
    assert settings.load(tmp_path, [named], {}) == Settings({"A": "one"}, (named,))


def test_a_later_env_file_beats_an_earlier_one_and_the_shell_beats_both(tmp_path: Path) -> None:
    one = write(tmp_path, "one.env", "A=one\nB=one\nC=one\n")
    two = write(tmp_path, "two.env", "B=two\nC=two\nD=two\n")
    found = settings.load(tmp_path, [one, two], {"C": "shell"})
    assert found == Settings({"A": "one", "B": "two", "C": "shell", "D": "two"}, (one, two))


def test_dot_env_may_be_named_among_the_env_files(tmp_path: Path) -> None:
    dot = write(tmp_path, ".env", "A=dot\nB=dot\n")
    one = write(tmp_path, "one.env", "A=one\n")
    assert settings.load(tmp_path, [dot, one], {}).values == {"A": "one", "B": "dot"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("A=1", {"A": "1"}),
        ("A=1\nB=two\n", {"A": "1", "B": "two"}),
        ("A=1\r\nB=two\r\n", {"A": "1", "B": "two"}),
        ("\ufeffA=1\nB=two\n", {"A": "1", "B": "two"}),
        ("\ufeffA=1\r\nB=two\r\n", {"A": "1", "B": "two"}),
        ("# A=0\n\n  # B=0\nA=1\n", {"A": "1"}),
        ("A=1 # one\nB=1#2\n", {"A": "1", "B": "1#2"}),
        ("A=\"two words\"\nB='two words'\n", {"A": "two words", "B": "two words"}),
        ("A=\"x # y\" # z\nB='x # y' # z\n", {"A": "x # y", "B": "x # y"}),
        ("A=\"one\\ntwo\"\nB='one\\ntwo'\n", {"A": "one\ntwo", "B": "one\\ntwo"}),
        ('A="one\ntwo"\nB=2\n', {"A": "one\ntwo", "B": "2"}),
        ("export A=1\n", {"A": "1"}),
        ("  A = 1  \n", {"A": "1"}),
        ("A=\nB=\"\"\nC=''\n", {"A": "", "B": "", "C": ""}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A=a=b\n", {"A": "a=b"}),
        ("A=模型\n", {"A": "模型"}),
        ("A\nB=1\n", {"B": "1"}),
        ("TANDEM_MODELS='$HOME'\n", {"TANDEM_MODELS": "$HOME"}),
    ],
)
def test_an_env_file_may_be_written_as_env_files_are(tmp_path: Path, text: str, values: dict[str, str]) -> None:
    write(tmp_path, ".env", text)
    assert settings.load(tmp_path, [], {}).values == values


@pytest.mark.parametrize(
    ("line", "doubt"),
    [
        ("TANDEM_MODELS=${HOME}/models", DOLLAR),
        ("TANDEM_MODELS=$HOME", DOLLAR),
        ('COMPOSE_PROFILES="$PROFILE"', DOLLAR),
        ("QWEN_14B_MAX_MODEL_LEN=${LEN:-8192}", DOLLAR),
        ("HTTPS_PROXY=$PROXY", DOLLAR),
        ("TANDEM_MODELS='C:\\models'", BACKSLASH),
        ("TANDEM_MODELS=#5", HASH),
        ("TANDEM_MODELS= #5", HASH),
        ("TANDEM_PORT=9000\t# the port", HASH),
    ],
)
def test_a_line_of_ours_that_compose_could_read_otherwise_is_refused(tmp_path: Path, line: str, doubt: str) -> None:
    path = write(tmp_path, "one.env", f"A=1\n{line}\n")
    with pytest.raises(ConfigError) as caught:
        settings.load(tmp_path, [path], {})
    assert caught.value.problems == [f"{path}: line 2: {line.partition('=')[0]}: {doubt}"]


@pytest.mark.parametrize("line", ["PRICE=$5", "PS1='a\\b'", "COLOUR=#fff", "PATH=$PATH:/opt"])
def test_what_is_not_ours_may_be_written_as_anyone_likes(tmp_path: Path, line: str) -> None:
    write(tmp_path, ".env", f"{line}\nTANDEM_PORT=9000\n")
    assert settings.load(tmp_path, [], {}).get("TANDEM_PORT") == "9000"


def test_compose_env_files_of_the_shell_take_the_place_of_dot_env(tmp_path: Path) -> None:
    write(tmp_path, ".env", "A=dot\n")
    write(tmp_path, "one.env", "A=one\nB=one\n")
    write(tmp_path, "two.env", "B=two\n")
    shell = {"COMPOSE_ENV_FILES": "one.env,two.env"}
    assert settings.load(tmp_path, [], shell) == Settings({"A": "one", "B": "two"} | shell, ())


@pytest.mark.parametrize(("value", "read"), [("1", {}), ("true", {}), ("0", {"A": "dot"}), ("", {"A": "dot"})])
def test_dot_env_is_left_alone_where_compose_is_told_to(tmp_path: Path, value: str, read: dict[str, str]) -> None:
    write(tmp_path, ".env", "A=dot\n")
    shell = {"COMPOSE_DISABLE_ENV_FILE": value}
    assert settings.load(tmp_path, [], shell).values == read | shell


def test_every_line_that_says_nothing_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "one.env", "A=1\nhello world\nB=2\n=3\n")
    with pytest.raises(ConfigError) as caught:
        settings.load(tmp_path, [path], {})
    assert caught.value.problems == [
        f"{path}: line 2: should be NAME=value",
        f"{path}: line 4: should be NAME=value",
    ]


def test_an_env_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.env"
    with pytest.raises(ConfigError) as caught:
        settings.load(tmp_path, [path], {})
    assert caught.value.problems == [f"{path}: cannot be read: No such file or directory"]


def test_an_env_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "utf16.env"
    path.write_bytes("A=1\n".encode("utf-16"))
    with pytest.raises(ConfigError) as caught:
        settings.load(tmp_path, [path], {})
    assert caught.value.problems == [f"{path}: cannot be read: it is not UTF-8"]


def test_a_setting_that_nobody_sets_has_its_usual_value() -> None:
    assert {name: of().get(name) for name in KNOWN} == {
        "TANDEM_PORT": "8000",
        "TANDEM_BIND": "127.0.0.1",
        "TANDEM_MODELS": "models",
        "TANDEM_REGISTRY": "",
        "TANDEM_VLLM": "",
        "TANDEM_BASE_IMAGE": "",
        "TANDEM_DEBIAN_MIRROR": "",
        "TANDEM_PYPI_INDEX": "",
        "TANDEM_TORCH_INDEX": "",
        "TANDEM_WHEELS": "",
        "TANDEM_CA_BUNDLE": "",
        "TANDEM_LIMIT_RATE": "",
        "TANDEM_MODELSCOPE_TOKEN_FILE": "",
        "TANDEM_HF_TOKEN_FILE": "",
        "TANDEM_HOLD_TIMEOUT": "300",
        "TANDEM_QUEUE_REQUESTS": "256",
        "TANDEM_QUEUE_BYTES": "268435456",
        "TANDEM_DRAIN_TIMEOUT": "300",
        "TANDEM_STALL_TIMEOUT": "300",
        "TANDEM_MIN_AWAKE": "5",
        "TANDEM_ABANDON": "1",
        "TANDEM_HOST_RESERVE": "8589934592",
        "TANDEM_WAIT_AS": "comment",
        "TANDEM_ADMIN_KEY_FILE": "",
        "TANDEM_BIND_WITHOUT_KEY": "",
        "TANDEM_KEYS_FOLDER": "./docker/router/keys",
        "TANDEM_CORS_ORIGINS": "https://web.chatboxai.app,http://localhost:*,http://127.0.0.1:*",
        "TANDEM_BODY_LIMIT": "64m",
        "TANDEM_LORA_LOADING": "",
        "TANDEM_TLS_CERT_FILE": "",
        "TANDEM_TLS_KEY_FILE": "",
        "TANDEM_TLS_FOLDER": "",
        "TANDEM_DOCKER_SOCKET": "/var/run/docker.sock",
        "TANDEM_WITHOUT": "",
        "TANDEM_PROMETHEUS_PORT": "9090",
        "TANDEM_GRAFANA_PORT": "3000",
    }


def test_compose_takes_the_usual_values_too() -> None:
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    said = dict(re.findall(r'"\$\{(TANDEM_\w+):-([^"$}]+)\}', text))
    assert set(said) >= {"TANDEM_BIND", "TANDEM_KEYS_FOLDER", "TANDEM_CORS_ORIGINS", "TANDEM_BODY_LIMIT"}
    del said["TANDEM_CA_BUNDLE"]
    # A mount needs a folder; whether there is a certificate the setting itself says.
    assert said.pop("TANDEM_TLS_FOLDER") == "./docker/router/tls"
    assert said == {name: KNOWN[name] or "/dev/null" for name in said}


def test_the_example_explains_every_setting_and_no_other() -> None:
    text = (ROOT / "env/example.env").read_text(encoding="utf-8")
    assert set(re.findall(r"^#(TANDEM_\w+)=", text, re.MULTILINE)) == set(KNOWN)


def test_the_example_shows_the_usual_values_of_what_has_one() -> None:
    text = (ROOT / "env/example.env").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^#(TANDEM_\w+)=(.*)$", text, re.MULTILINE))
    usual = {name: value for name, value in KNOWN.items() if value}
    assert {name: shown[name] for name in usual} == usual


def test_what_is_turned_off_has_to_be_something_that_there_is() -> None:
    assert settings.problems(of(TANDEM_WITHOUT="NCCL_P2P_DISABLE"), [], VERSIONS) == []
    (problem,) = settings.problems(of(TANDEM_WITHOUT="NCCL_P2P_DISABLE, p2p"), [], VERSIONS)
    assert problem.startswith("TANDEM_WITHOUT: should be some of disable-custom-all-reduce, NCCL_P2P_DISABLE,")
    assert problem.endswith('got "p2p"')


@pytest.mark.parametrize(
    ("values", "address"),
    [
        ({}, "http://localhost:8000"),
        ({"TANDEM_PORT": "9000"}, "http://localhost:9000"),
        ({"TANDEM_BIND": "127.0.0.1"}, "http://localhost:8000"),
        ({"TANDEM_BIND": "0.0.0.0"}, "http://localhost:8000"),
        ({"TANDEM_BIND": "[::]"}, "http://localhost:8000"),
        ({"TANDEM_BIND": "::"}, "http://localhost:8000"),
        ({"TANDEM_BIND": "192.168.1.5", "TANDEM_PORT": "80"}, "http://192.168.1.5:80"),
        ({"TANDEM_BIND": "[fd00::5]"}, "http://[fd00::5]:8000"),
        ({"TANDEM_TLS_CERT_FILE": "/c.pem", "TANDEM_TLS_KEY_FILE": "/k.pem"}, "https://localhost:8000"),
        ({"TANDEM_TLS_FOLDER": "/tls"}, "https://localhost:8000"),
    ],
)
def test_the_address_is_where_this_machine_reaches_the_router(values: dict[str, str], address: str) -> None:
    assert of(**values).address == address


@pytest.mark.parametrize(
    ("value", "profiles"),
    [
        ("", []),
        ("demo", ["demo"]),
        ("demo,qwen-14b", ["demo", "qwen-14b"]),
        (" demo , qwen-14b ,", ["demo", "qwen-14b"]),
    ],
)
def test_compose_profiles_are_split_at_commas(value: str, profiles: list[str]) -> None:
    assert of(COMPOSE_PROFILES=value).profiles == profiles


def test_the_compose_project_is_tandem_unless_it_is_said_otherwise() -> None:
    assert (of().project, of(COMPOSE_PROJECT_NAME="").project) == ("tandem", "tandem")
    assert of(COMPOSE_PROJECT_NAME="second").project == "second"


FITTING = {
    "TANDEM_PORT": "65535",
    "TANDEM_BIND": "0.0.0.0",
    "TANDEM_PYPI_INDEX": "https://mirror.example.org/simple",
    "TANDEM_DEBIAN_MIRROR": "http://mirror.example.org:3142/debian",
    "TANDEM_REGISTRY": "mirror.example.org:5000/hub",
    "MODELSCOPE_ENDPOINT": "https://hub.example.org",
    "HTTPS_PROXY": "http://me:s$cret@host.docker.internal:7890",
    "HTTP_PROXY": "http://[fd00::5]:3128/",
    "NO_PROXY": "localhost,.example.org",
    "QWEN_14B_MAX_MODEL_LEN": "8192",
    "QWEN_14B_GPU_MEMORY_UTILIZATION": "0.85",
    "PATH": "/bin",
    "TANDEMONIUM": "x",
}


def test_settings_that_fit_have_no_problems() -> None:
    found = profile(max_model_len=16384, gpu_memory_utilization=0.9)
    assert settings.problems(of(**FITTING), [found], VERSIONS) == []
    assert settings.problems(of(), [found], VERSIONS) == []


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ({"TANDEM_PROT": "9000"}, ["TANDEM_PROT: unknown setting, did you mean TANDEM_PORT?"]),
        ({"TANDEM_PYPI_INDX": ""}, ["TANDEM_PYPI_INDX: unknown setting, did you mean TANDEM_PYPI_INDEX?"]),
        (
            {"TANDEM_XYZZY_QQ": "1"},
            [
                "TANDEM_XYZZY_QQ: unknown setting; there are: TANDEM_PORT, TANDEM_BIND, TANDEM_MODELS,"
                " TANDEM_REGISTRY, TANDEM_VLLM, TANDEM_BASE_IMAGE, TANDEM_DEBIAN_MIRROR, TANDEM_PYPI_INDEX,"
                " TANDEM_TORCH_INDEX, TANDEM_WHEELS, TANDEM_CA_BUNDLE, TANDEM_LIMIT_RATE,"
                " TANDEM_MODELSCOPE_TOKEN_FILE, TANDEM_HF_TOKEN_FILE, TANDEM_HOLD_TIMEOUT, TANDEM_QUEUE_REQUESTS,"
                " TANDEM_QUEUE_BYTES, TANDEM_DRAIN_TIMEOUT, TANDEM_STALL_TIMEOUT, TANDEM_MIN_AWAKE, TANDEM_ABANDON,"
                " TANDEM_HOST_RESERVE, TANDEM_WAIT_AS, TANDEM_ADMIN_KEY_FILE, TANDEM_BIND_WITHOUT_KEY,"
                " TANDEM_KEYS_FOLDER, TANDEM_CORS_ORIGINS, TANDEM_BODY_LIMIT, TANDEM_LORA_LOADING,"
                " TANDEM_TLS_CERT_FILE, TANDEM_TLS_KEY_FILE, TANDEM_TLS_FOLDER, TANDEM_DOCKER_SOCKET,"
                " TANDEM_WITHOUT, TANDEM_PROMETHEUS_PORT, TANDEM_GRAFANA_PORT"
            ],
        ),
        ({"TANDEM_PORT": "0"}, ['TANDEM_PORT: should be a port from 1 to 65535, got "0"']),
        ({"TANDEM_PORT": "65536"}, ['TANDEM_PORT: should be a port from 1 to 65535, got "65536"']),
        ({"TANDEM_PORT": "http"}, ['TANDEM_PORT: should be a port from 1 to 65535, got "http"']),
        ({"TANDEM_PORT": "-1"}, ['TANDEM_PORT: should be a port from 1 to 65535, got "-1"']),
        ({"TANDEM_PORT": "8000 "}, ['TANDEM_PORT: should be a port from 1 to 65535, got "8000 "']),
        ({"TANDEM_PROMETHEUS_PORT": "0"}, ['TANDEM_PROMETHEUS_PORT: should be a port from 1 to 65535, got "0"']),
        ({"TANDEM_GRAFANA_PORT": "x"}, ['TANDEM_GRAFANA_PORT: should be a port from 1 to 65535, got "x"']),
        ({"TANDEM_PORT": "８０００"}, ['TANDEM_PORT: should be a port from 1 to 65535, got "８０００"']),
        (
            {"TANDEM_PYPI_INDEX": "https://me:secret@mirror.example.org/simple"},
            [f"TANDEM_PYPI_INDEX: {PASSWORD}"],
        ),
        (
            {"TANDEM_DEBIAN_MIRROR": "http://me:secret@mirror.example.org/debian"},
            [f"TANDEM_DEBIAN_MIRROR: {PASSWORD}"],
        ),
        (
            {"TANDEM_PYPI_INDEX": "https://:token@mirror.example.org/simple"},
            [f"TANDEM_PYPI_INDEX: {PASSWORD}"],
        ),
        (
            {"TANDEM_PYPI_INDEX": "https://token@mirror.example.org/simple"},
            [f"TANDEM_PYPI_INDEX: {PASSWORD}"],
        ),
        (
            {"TANDEM_REGISTRY": "https://mirror.example.org/"},
            [
                "TANDEM_REGISTRY: should be a registry such as mirror.example.org or mirror.example.org:5000/hub,"
                ' no https:// and no / at the end, got "https://mirror.example.org/"'
            ],
        ),
        ({"TANDEM_DEBIAN_MIRROR": "mirror.example.org"}, [f'TANDEM_DEBIAN_MIRROR: {URL}, got "mirror.example.org"']),
        ({"TANDEM_PYPI_INDEX": "/srv/simple"}, [f'TANDEM_PYPI_INDEX: {URL}, got "/srv/simple"']),
        ({"TANDEM_PYPI_INDEX": "https://a.org/a b"}, [f'TANDEM_PYPI_INDEX: {URL}, got "https://a.org/a b"']),
        ({"MODELSCOPE_ENDPOINT": "www.example.org"}, [f'MODELSCOPE_ENDPOINT: {URL}, got "www.example.org"']),
        ({"HTTPS_PROXY": "socks5://127.0.0.1:1080"}, [f'HTTPS_PROXY: {URL}, got "socks5://127.0.0.1:1080"']),
        ({"HTTP_PROXY": "me:secret@proxy:3128"}, [f'HTTP_PROXY: {URL}, got "***@proxy:3128"']),
        ({"HTTPS_PROXY": "http://me:pa/ss@proxy:1"}, [f'HTTPS_PROXY: {URL}, got "http://***@proxy:1"']),
        ({"HTTPS_PROXY": "http://proxy..corp:3128"}, [f'HTTPS_PROXY: {URL}, got "http://proxy..corp:3128"']),
        ({"HTTP_PROXY": f"http://{'a' * 64}.corp"}, [f'HTTP_PROXY: {URL}, got "http://{"a" * 64}.corp"']),
        ({"HTTPS_PROXY": "http://h:99999"}, ['HTTPS_PROXY: should have a port from 1 to 65535, got "http://h:99999"']),
        ({"TANDEM_REGISTRY": "h:0/hub"}, ['TANDEM_REGISTRY: should have a port from 1 to 65535, got "h:0/hub"']),
        (
            {"HTTP_PROXY": "http://me:x@[:::]:1"},
            ['HTTP_PROXY: should have an IPv6 address in its brackets, got "http://***@[:::]:1"'],
        ),
        (
            {"QWEN_14B_MAX_MODEL_LEN": "16k"},
            ['QWEN_14B_MAX_MODEL_LEN: should be a number of tokens of at least 1, got "16k"'],
        ),
        (
            {"QWEN_14B_MAX_MODEL_LEN": "0"},
            ['QWEN_14B_MAX_MODEL_LEN: should be a number of tokens of at least 1, got "0"'],
        ),
        (
            {"QWEN_14B_GPU_MEMORY_UTILIZATION": "90%"},
            ['QWEN_14B_GPU_MEMORY_UTILIZATION: should be a number above 0 and up to 1, got "90%"'],
        ),
        (
            {"QWEN_14B_GPU_MEMORY_UTILIZATION": "0.0"},
            ['QWEN_14B_GPU_MEMORY_UTILIZATION: should be a number above 0 and up to 1, got "0.0"'],
        ),
        (
            {"QWEN_14B_GPU_MEMORY_UTILIZATION": "1.1"},
            ['QWEN_14B_GPU_MEMORY_UTILIZATION: should be a number above 0 and up to 1, got "1.1"'],
        ),
        (
            {"TANDEM_PROT": "1", "TANDEM_PORT": "x", "QWEN_14B_MAX_MODEL_LEN": "x"},
            [
                "TANDEM_PROT: unknown setting, did you mean TANDEM_PORT?",
                'TANDEM_PORT: should be a port from 1 to 65535, got "x"',
                'QWEN_14B_MAX_MODEL_LEN: should be a number of tokens of at least 1, got "x"',
            ],
        ),
    ],
)
def test_each_problem_is_a_name_and_a_fact(values: dict[str, str], lines: list[str]) -> None:
    found = profile(max_model_len=16384, gpu_memory_utilization=0.9)
    assert settings.problems(of(**values), [found], VERSIONS) == lines


def test_programs_on_this_machine_get_the_proxies_as_they_reach_them() -> None:
    set_ = {"HTTPS_PROXY": "http://host.docker.internal:7890", "NO_PROXY": ".example.org", "HTTP_PROXY": ""}
    assert of(**set_).proxies == {"https_proxy": "http://127.0.0.1:7890", "no_proxy": ".example.org"}


def test_a_password_is_never_repeated() -> None:
    said = settings.problems(of(TANDEM_PYPI_INDEX="https://me:secret@mirror.example.org/simple"), [], VERSIONS)
    assert [line for line in said if "secret" in line] == []
    assert len(said) == 1


@pytest.mark.parametrize("port", ["1", "80", "8000", "65535"])
def test_every_port_that_there_is_may_be_taken(port: str) -> None:
    assert settings.problems(of(TANDEM_PORT=port), [], VERSIONS) == []


@pytest.mark.parametrize("value", ["1", "1.0", "0.5", ".5", "0.05"])
def test_every_spelling_of_a_share_that_vllm_takes_is_taken(value: str) -> None:
    found = profile(gpu_memory_utilization=0.9)
    assert settings.problems(of(QWEN_14B_GPU_MEMORY_UTILIZATION=value), [found], VERSIONS) == []


def test_a_profile_whose_name_begins_with_tandem_may_be_overridden_like_any_other() -> None:
    found = profile(name="tandem-mini", max_model_len=16384)
    assert settings.problems(of(TANDEM_MINI_MAX_MODEL_LEN="8192"), [found], VERSIONS) == []


def test_an_override_of_what_models_toml_does_not_set_is_refused_because_nothing_would_read_it() -> None:
    assert settings.problems(of(QWEN_14B_GPU_MEMORY_UTILIZATION="0.5"), [profile()], VERSIONS) == [
        "QWEN_14B_GPU_MEMORY_UTILIZATION: overrides gpu_memory_utilization, which models.qwen-14b does not set"
    ]


@pytest.mark.parametrize("value", ["./weights", "weights", "~/weights", "C:/weights"])
def test_weights_are_in_the_volume_or_in_a_folder_with_its_whole_path(value: str) -> None:
    assert settings.problems(of(TANDEM_MODELS=value), [], VERSIONS) == [
        f'TANDEM_MODELS: should be models, for a volume, or a folder that begins with /, got "{value}"'
    ]
    assert settings.problems(of(TANDEM_MODELS="/data/weights"), [], VERSIONS) == []


def test_the_address_to_bind_is_an_ip_address() -> None:
    assert settings.problems(of(TANDEM_BIND="nonsense"), [], VERSIONS) == [
        'TANDEM_BIND: should be an IP address such as 127.0.0.1, got "nonsense"'
    ]
    for value in ("0.0.0.0", "192.168.1.2", "[::]", "::1"):
        assert settings.problems(of(TANDEM_BIND=value), [], VERSIONS) == []


SECONDS = "should be a number of seconds above 0, such as 300"


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("TANDEM_HOLD_TIMEOUT", "0", SECONDS),
        ("TANDEM_HOLD_TIMEOUT", "-1", SECONDS),
        ("TANDEM_HOLD_TIMEOUT", "5m", SECONDS),
        ("TANDEM_DRAIN_TIMEOUT", "0.0", SECONDS),
        ("TANDEM_STALL_TIMEOUT", "inf", SECONDS),
        ("TANDEM_STALL_TIMEOUT", "３００", SECONDS),
        ("TANDEM_MIN_AWAKE", "1e3", "should be a number of seconds, such as 5"),
        ("TANDEM_QUEUE_REQUESTS", "0", "should be a number of requests of at least 1"),
        ("TANDEM_QUEUE_BYTES", "256M", "should be a number of bytes of at least 1, such as 268435456"),
        ("TANDEM_HOST_RESERVE", "8GiB", "should be a number of bytes, such as 8589934592"),
        ("TANDEM_ABANDON", "yes", "should be 1 or 0"),
        ("TANDEM_WAIT_AS", "comments", "should be comment or reasoning"),
        ("TANDEM_DOCKER_SOCKET", "docker.sock", "should be the whole path of Docker's socket, beginning with /"),
    ],
)
def test_a_setting_of_switching_that_cannot_be_is_told_what_it_should_be(name: str, value: str, fact: str) -> None:
    assert settings.problems(of(**{name: value}), [], VERSIONS) == [f'{name}: {fact}, got "{value}"']


@pytest.mark.parametrize(
    "values",
    [
        {"TANDEM_HOLD_TIMEOUT": "0.5", "TANDEM_MIN_AWAKE": "0", "TANDEM_HOST_RESERVE": "0", "TANDEM_ABANDON": "0"},
        {"TANDEM_WAIT_AS": "reasoning", "TANDEM_QUEUE_REQUESTS": "1", "TANDEM_QUEUE_BYTES": "1"},
        {"TANDEM_WAIT_AS": "", "TANDEM_DRAIN_TIMEOUT": ""},
    ],
)
def test_settings_of_switching_that_can_be_are_taken(values: dict[str, str]) -> None:
    assert settings.problems(of(**values), [], VERSIONS) == []


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.0.0.2", "::1", "[::1]", ""])
def test_what_switches_is_open_where_only_this_machine_reaches_it(bind: str) -> None:
    assert of(TANDEM_BIND=bind).shut == ""


@pytest.mark.parametrize("bind", ["0.0.0.0", "192.168.1.5", "[::]"])
def test_what_switches_is_shut_to_other_machines_without_a_key(bind: str) -> None:
    said = of(TANDEM_BIND=bind).shut
    assert said.startswith(f"TANDEM_BIND={bind} lets other machines in")
    assert "TANDEM_ADMIN_KEY_FILE=" in said
    assert of(TANDEM_BIND=bind, TANDEM_ADMIN_KEY_FILE="/etc/admin.key").shut == ""
    assert settings.problems(of(TANDEM_BIND=bind), [], VERSIONS) == []


ORIGINS = (
    "should be *, none, or origins with commas between them, such as https://web.chatboxai.app or http://localhost:*"
)
SIZE = "should be a size such as 64m or 1g, of up to nine digits"
KEYS_FOLDER = "should be ./docker/router/keys, or a folder that begins with /"


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("TANDEM_CORS_ORIGINS", "https://example.org/", ORIGINS),
        ("TANDEM_CORS_ORIGINS", "example.org", ORIGINS),
        ("TANDEM_CORS_ORIGINS", "https://Example.org", ORIGINS),
        ("TANDEM_CORS_ORIGINS", "https://*.example.org", ORIGINS),
        ("TANDEM_CORS_ORIGINS", "null", ORIGINS),
        ("TANDEM_BODY_LIMIT", "0", SIZE),
        ("TANDEM_BODY_LIMIT", "64 MiB", SIZE),
        ("TANDEM_BODY_LIMIT", "064m", SIZE),
        ("TANDEM_BODY_LIMIT", "1.5g", SIZE),
        ("TANDEM_BODY_LIMIT", "1234567890m", SIZE),
        ("TANDEM_BIND_WITHOUT_KEY", "1", "should be yes or no"),
        ("TANDEM_LORA_LOADING", "true", "should be yes or no"),
        ("TANDEM_KEYS_FOLDER", "keys", KEYS_FOLDER),
        ("TANDEM_KEYS_FOLDER", "~/keys", KEYS_FOLDER),
    ],
)
def test_a_setting_of_who_reaches_the_router_that_cannot_be_is_told_what_it_should_be(
    name: str, value: str, fact: str
) -> None:
    assert settings.problems(of(**{name: value}), [], VERSIONS) == [f'{name}: {fact}, got "{value}"']


def test_of_a_list_of_origins_the_wrong_one_is_named() -> None:
    value = "https://example.org, https://example.org/path, nonsense"
    assert settings.problems(of(TANDEM_CORS_ORIGINS=value), [], VERSIONS) == [
        f'TANDEM_CORS_ORIGINS: {ORIGINS}, got "https://example.org/path"'
    ]


@pytest.mark.parametrize(
    "values",
    [
        {"TANDEM_CORS_ORIGINS": value}
        for value in ("*", "none", "", "https://a.example.org:8443,http://[::1]:*", "capacitor://localhost, tauri://x")
    ]
    + [{"TANDEM_BODY_LIMIT": value} for value in ("1", "512k", "64m", "64M", "1G")]
    + [{"TANDEM_BIND_WITHOUT_KEY": value} for value in ("", "yes", "no")]
    + [{"TANDEM_KEYS_FOLDER": "/etc/tandem"}],
)
def test_settings_of_who_reaches_the_router_that_can_be_are_taken(values: dict[str, str]) -> None:
    assert settings.problems(of(**values), [], VERSIONS) == []


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("TANDEM_TLS_CERT_FILE", "TANDEM_TLS_KEY_FILE"), ("TANDEM_TLS_KEY_FILE", "TANDEM_TLS_CERT_FILE")],
)
def test_a_certificate_without_its_key_is_half_of_what_it_takes(given: str, wanted: str) -> None:
    assert settings.problems(of(**{given: "/x.pem"}), [], VERSIONS) == [
        f"{wanted}: should be set too, as {given} is: a certificate and its key go together"
    ]


def test_a_certificate_is_named_in_one_of_the_two_ways() -> None:
    given = {"TANDEM_TLS_CERT_FILE": "/c.pem", "TANDEM_TLS_KEY_FILE": "/k.pem"}
    assert (of(**given).certificate, of(**given).certificate_key) == ("/c.pem", "/k.pem")
    for folder in ("/tls", "/tls/"):
        found = of(TANDEM_TLS_FOLDER=folder)
        assert (found.certificate, found.certificate_key) == ("/tls/cert.pem", "/tls/key.pem")
    assert (of().certificate, of().certificate_key) == ("", "")
    assert settings.problems(of(TANDEM_TLS_FOLDER="/tls", **given), [], VERSIONS) == [
        "TANDEM_TLS_FOLDER: should not be set beside TANDEM_TLS_CERT_FILE: one of the two names the certificate"
    ]
