"""What a server's command line says of it, and how the vLLM that is installed wants it spelt."""

import pytest
from gating import command

SERVE = ["vllm", "serve", "/models/a/b"]


@pytest.mark.parametrize(
    ("version", "flags", "more"),
    [
        ("0.7.3", ["--reasoning-parser", "deepseek_r1"], ["--enable-reasoning"]),
        ("0.7.3", ["--reasoning-parser=deepseek_r1"], ["--enable-reasoning"]),
        ("0.7.3", [], []),
        ("0.10.0", ["--reasoning-parser", "deepseek_r1"], []),
        ("0.32.0+cpu", ["--reasoning-parser", "deepseek_r1"], []),
    ],
)
def test_a_reasoning_parser_is_turned_on_in_the_words_of_the_version_that_serves(
    version: str, flags: list[str], more: list[str]
) -> None:
    assert command.fitting([*SERVE, *flags], version, {}, cuda=True) == [*SERVE, *flags, *more]


@pytest.mark.parametrize(
    ("version", "cuda", "wanted", "flags", "added"),
    [
        ("0.17.0", True, "1", [], True),
        ("0.32.0", True, "1", [], True),
        ("0.16.9", True, "1", [], False),
        ("0.32.0", True, "0", [], False),
        ("0.32.0", True, None, [], False),
        ("0.32.0+cpu", False, "1", [], False),
        ("0.32.0", True, "1", ["--enable-sleep-mode"], False),
        ("0.32.0", True, "1", ["--enable_sleep_mode"], False),
    ],
)
def test_sleep_mode_is_added_where_it_is_wanted_works_and_is_not_there_yet(
    version: str, cuda: bool, wanted: str | None, flags: list[str], added: bool
) -> None:
    environment = {} if wanted is None else {"TANDEM_SLEEP": wanted}
    fitted = command.fitting([*SERVE, *flags], version, environment, cuda=cuda)
    assert fitted == [*SERVE, *flags, *(["--enable-sleep-mode"] if added else [])]


@pytest.mark.parametrize(
    ("flags", "told", "added"),
    [
        ([], "", []),
        ([], "--disable-custom-all-reduce", ["--disable-custom-all-reduce"]),
        (["--disable-custom-all-reduce"], "--disable-custom-all-reduce", []),
        (["--disable_custom_all_reduce"], "--disable-custom-all-reduce", []),
        (["--no-disable-custom-all-reduce"], "--disable-custom-all-reduce", []),
        (["--a"], "--disable-custom-all-reduce --b", ["--disable-custom-all-reduce", "--b"]),
    ],
)
def test_flags_that_follow_from_the_machine_are_added_unless_something_is_said_of_them(
    flags: list[str], told: str, added: list[str]
) -> None:
    found = command.fitting([*SERVE, *flags], "0.32.0", {"TANDEM_FLAGS": told}, cuda=True)
    assert found == [*SERVE, *flags, *added]


@pytest.mark.parametrize(
    ("flags", "version", "share"),
    [
        (["--gpu-memory-utilization", "0.5"], "0.32.0", 0.5),
        (["--gpu-memory-utilization=0.5"], "0.32.0", 0.5),
        (["--gpu_memory_utilization", "0.5"], "0.32.0", 0.5),
        (["--gpu-memory-utilization", "0.5", "--gpu-memory-utilization", "0.6"], "0.32.0", 0.6),
        ([], "0.32.0", 0.92),
        ([], "0.20.0", 0.92),
        ([], "0.19.1+cu128", 0.9),
        # vLLM will say what is wrong with it.
        (["--gpu-memory-utilization", "lots"], "0.32.0", 0.92),
        (["--gpu-memory-utilization"], "0.32.0", 0.92),
    ],
)
def test_the_claim_is_what_the_command_line_says_else_vllms_default(
    flags: list[str], version: str, share: float
) -> None:
    assert command.claim([*SERVE, *flags], version) == share


@pytest.mark.parametrize(
    ("flags", "name", "port"),
    [
        ([], "/models/a/b", 8000),
        (["--served-model-name", "one", "uno", "--port", "9"], "one", 9),
        (["--port=9", "--served-model-name=one"], "one", 9),
        (["--port", "any"], "/models/a/b", 8000),
    ],
)
def test_where_and_what_the_server_will_list(flags: list[str], name: str, port: int) -> None:
    argv = [*SERVE, *flags]
    assert (command.name(argv), command.port(argv)) == (name, port)
