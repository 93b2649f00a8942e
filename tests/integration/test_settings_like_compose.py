"""The same env file means the same to Tandem and to Compose, which reads it again for every container."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator import settings
from orchestrator.errors import ConfigError

pytestmark = pytest.mark.docker

NAMES = ("TANDEM_A", "TANDEM_B", "TANDEM_C", "TANDEM_D")
UNSET = "<unset>"
SHELL = {"FROM_SHELL": "of the shell", "EMPTY": "", "TANDEM_D": "of the shell"}

READ_ALIKE = {
    "nothing": "",
    "plain values": "TANDEM_A=1\nTANDEM_B=two\n",
    "no line end at the end": "TANDEM_A=1\nTANDEM_B=2",
    "blank lines and comments": "\n\n# TANDEM_A=0\n   # TANDEM_B=0\nTANDEM_A=1\n\n",
    "double quotes": 'TANDEM_A="two words"\nTANDEM_B="it\'s"\nTANDEM_C=" x "\n',
    "single quotes": "TANDEM_A='two words'\nTANDEM_B='say \"x\"'\nTANDEM_C=' x '\n",
    "quotes inside a value": 'TANDEM_A=it"s\nTANDEM_B=a\'b\nTANDEM_C=a"b"c\n',
    "inline comments": "TANDEM_A=1 # one\nTANDEM_B=1# two\nTANDEM_C=x#y\n",
    "inline comments after quotes": "TANDEM_A=\"x # y\" # z\nTANDEM_B='x # y' # z\n",
    "quoted values that begin with a hash": "TANDEM_A=\"#1\"\nTANDEM_B='#1'\n",
    "export": "export TANDEM_A=1\nexport   TANDEM_B='2'\n",
    "Windows line ends": 'TANDEM_A=1\r\nTANDEM_B="2"\r\nTANDEM_C=3 # c\r\n',
    "a byte order mark": "\ufeffTANDEM_A=1\nTANDEM_B=2\n",
    "a byte order mark and Windows line ends": "\ufeffTANDEM_A=1\r\nTANDEM_B=2\r\n",
    "spaces around the equals sign": "TANDEM_A = 1\nTANDEM_B =2\n  TANDEM_C= 3\n",
    "tabs": "\tTANDEM_A=1\nTANDEM_B\t=\t2\n",
    "spaces at the end": 'TANDEM_A=1   \nTANDEM_B="2"   \n',
    "empty values": "TANDEM_A=\nTANDEM_B=\"\"\nTANDEM_C=''\n",
    "a value of spaces": "TANDEM_A=   \n",
    "a name alone": "TANDEM_A\nTANDEM_B=1\n",
    "an exported name alone": "export TANDEM_A\nTANDEM_B=1\n",
    "a name alone that the shell has": "FROM_SHELL\nTANDEM_D\n",
    "a name alone after its value": "TANDEM_A=1\nTANDEM_A\n",
    "the same name twice": "TANDEM_A=1\nTANDEM_A=2\n",
    "a name that the shell has": "TANDEM_D=of the file\n",
    "equals signs in a value": 'TANDEM_A=a=b\nTANDEM_B="a=b"\n',
    "an address": "TANDEM_A=http://mirror.example.org:3142/debian?a=b&c#d\n",
    "a Windows path": "TANDEM_A=C:\\models\\new\n",
    "Chinese": 'TANDEM_A=模型\nTANDEM_B="你好 世界" # 注释\n',
    "a line end and a tab in double quotes": 'TANDEM_A="a\\nb"\nTANDEM_B="a\\tb"\n',
    "a quote and a backslash in double quotes": 'TANDEM_A="a\\"b"\nTANDEM_B="a\\\\b"\nTANDEM_C="a\\b"\n',
    "escapes without quotes": "TANDEM_A=a\\nb\n",
    "lines in double quotes": 'TANDEM_A="one\ntwo"\nTANDEM_B=3\n',
    "lines in single quotes": "TANDEM_A='one\ntwo'\nTANDEM_B=3\n",
    "dollars in single quotes": "TANDEM_A='${FROM_SHELL}'\nTANDEM_B='$FROM_SHELL'\nTANDEM_C='$$'\n",
}
# What python-dotenv and Compose take differently, in a line of ours, and some that they take alike.
REFUSED = {
    "a variable": "TANDEM_A=${FROM_SHELL}\n",
    "a variable without braces": "TANDEM_A=$FROM_SHELL\n",
    "a variable in double quotes": 'TANDEM_A="x ${FROM_SHELL} y"\n',
    "a variable of an earlier line": "ONE=1\nTANDEM_A=${ONE}\n",
    "a default": "TANDEM_A=${NOWHERE:-x}\n",
    "a default for what is empty": "TANDEM_A=${EMPTY-x}\n",
    "an alternative": "TANDEM_A=${FROM_SHELL:+x}\n",
    "two dollars": "TANDEM_A=$$x\n",
    "an escaped dollar": 'TANDEM_A="\\$x"\n',
    "a backslash in single quotes": "TANDEM_A='a\\\\b'\n",
    "an apostrophe in single quotes": "TANDEM_A='it\\'s'\n",
    "a tab before a comment": "TANDEM_A=1\t# one\n",
    "a value that begins with a hash": "TANDEM_A=#1\n",
    "a space and a value that begins with a hash": "TANDEM_A= #1\n",
    "words after a quote": 'TANDEM_A="x"y\n',
    "a colon": "TANDEM_A: 1\n",
    "a name with a space": "TANDEM A=1\n",
    "a quote that does not end": 'TANDEM_A="x\n',
}

RARE = {
    "a wide space before a value": "TANDEM_A=\u3000x\n",
    "a wide space within a value": "TANDEM_A=模\u3000型\n",
    "an apostrophe with a backslash in double quotes": 'TANDEM_A="it\\\'s"\n',
    "an octal escape": 'TANDEM_A="\\0101"\n',
    "a bell": 'TANDEM_A="\\a"\n',
    "an escape that is none": 'TANDEM_A="\\x41"\n',
}


def compose(folder: Path, *env_files: str, **shell: str) -> dict[str, str]:
    """What Compose puts in the place of ${TANDEM_A} and its like."""
    labels = "".join(f'      {name}: "${{{name}-{UNSET}}}"\n' for name in NAMES)
    text = f"name: settings\nservices:\n  s:\n    image: none\n    labels:\n{labels}"
    (folder / "compose.yaml").write_text(text, encoding="utf-8")
    argv = ["docker", "compose", *(word for name in env_files for word in ("--env-file", name))]
    shown = subprocess.run(
        [*argv, "config", "--format", "json"], cwd=folder, env=shell, capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    seen = json.loads(shown.stdout)["services"]["s"]["labels"]
    # `config` prints what Compose would read again, so a dollar comes out as two.
    return {name: value.replace("$$", "$") for name, value in seen.items() if value != UNSET}


def tandem(folder: Path, *env_files: str, **shell: str) -> dict[str, str]:
    """What Tandem takes the same names for."""
    values = settings.load(folder, [folder / name for name in env_files], shell).values
    return {name: values[name] for name in NAMES if name in values}


def shell(**more: str) -> dict[str, str]:
    """A shell that knows where docker is, and little else."""
    found = shutil.which("docker")
    assert found, "no docker command"
    return {"PATH": str(Path(found).parent), "HOME": os.environ.get("HOME", "/"), **more}


@pytest.mark.parametrize("text", READ_ALIKE.values(), ids=READ_ALIKE)
def test_a_file_has_the_same_values(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.env").write_bytes(text.encode())
    mine = shell(**SHELL)
    assert tandem(tmp_path, "one.env", **mine) == compose(tmp_path, "one.env", **mine)


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_a_line_that_could_mean_two_things_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.env").write_bytes(text.encode())
    with pytest.raises(ConfigError) as caught:
        tandem(tmp_path, "one.env", **SHELL)
    last = len(text.splitlines())
    assert [problem.split(": ")[:2] for problem in caught.value.problems] == [[f"{tmp_path}/one.env", f"line {last}"]]


@pytest.mark.parametrize("text", RARE.values(), ids=RARE)
def test_a_rare_line_is_refused_if_it_has_not_the_same_value(tmp_path: Path, text: str) -> None:
    (tmp_path / "one.env").write_bytes(text.encode())
    mine = shell(**SHELL)
    try:
        read = tandem(tmp_path, "one.env", **mine)
    except ConfigError:
        return
    assert read == compose(tmp_path, "one.env", **mine)


@pytest.mark.parametrize(
    ("env_files", "more"),
    [
        ([], {}),
        (["one.env"], {}),
        (["one.env", "two.env"], {}),
        (["two.env", "one.env"], {}),
        ([".env", "one.env"], {}),
        (["one.env"], {"TANDEM_A": "shell", "TANDEM_D": "shell"}),
        (["one.env", "two.env"], {"TANDEM_A": ""}),
        ([], {"TANDEM_A": ""}),
        ([], {"COMPOSE_ENV_FILES": "one.env"}),
        ([], {"COMPOSE_ENV_FILES": "one.env,two.env"}),
        ([], {"COMPOSE_ENV_FILES": ""}),
        (["two.env"], {"COMPOSE_ENV_FILES": "one.env"}),
        ([], {"COMPOSE_DISABLE_ENV_FILE": "1"}),
        ([], {"COMPOSE_DISABLE_ENV_FILE": "true"}),
        ([], {"COMPOSE_DISABLE_ENV_FILE": "0"}),
        (["one.env"], {"COMPOSE_DISABLE_ENV_FILE": "1"}),
        ([], {"COMPOSE_DISABLE_ENV_FILE": "1", "COMPOSE_ENV_FILES": "one.env"}),
    ],
)
def test_the_same_source_wins(tmp_path: Path, env_files: list[str], more: dict[str, str]) -> None:
    (tmp_path / ".env").write_text("TANDEM_A=dot\nTANDEM_D=dot\n")
    (tmp_path / "one.env").write_text("TANDEM_A=one\nTANDEM_B=one\nTANDEM_C=one\n")
    (tmp_path / "two.env").write_text("TANDEM_B=two\nTANDEM_C\n")
    mine = shell(**more)
    assert tandem(tmp_path, *env_files, **mine) == compose(tmp_path, *env_files, **mine)


@pytest.mark.parametrize("value", ["tandem", "second", "a_b-9", ""])
def test_the_project_has_the_name_that_compose_gives_it(tmp_path: Path, value: str) -> None:
    (tmp_path / "compose.yaml").write_text("name: tandem\nservices:\n  s:\n    image: none\n")
    mine = shell(COMPOSE_PROJECT_NAME=value)
    shown = subprocess.run(
        ["docker", "compose", "config", "--format", "json"],
        cwd=tmp_path, env=mine, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert json.loads(shown.stdout)["name"] == settings.load(tmp_path, [], mine).project
