"""scripts/setup and scripts/lock behind mirrors: pip and uv get the settings, and no command line shows them."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.settings import Settings
from tests.unit.values import ROOT, script

INDEX = "https://mirror.example.org/simple"
NAMES = ("PIP_INDEX_URL", "PIP_CERT", "REQUESTS_CA_BUNDLE", "https_proxy", "http_proxy", "no_proxy")
# Answers as if nothing were missing.
DOCKER = """#!/bin/sh
case $* in *compose*) echo 2.30.0 ;; *) echo 28.0.0 ;; esac
"""
# In the place of .venv's Python: writes down what it is run with.
PIP = f"""#!/bin/sh
echo "$@" >>argv
for name in {" ".join(NAMES)}; do eval "echo $name=\\"\\${{$name-}}\\""; done >environment
"""


def given(folder: Path, **shell: str) -> dict[str, str]:
    """What pip gets in folder; names with a value alone."""
    script = f". {ROOT}/scripts/pip-settings; pip_settings; env -0"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env={"PATH": os.environ["PATH"], **shell},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    shown = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    return {name: value for name, value in shown.items() if name in NAMES}


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize(
    "text",
    [
        f"TANDEM_PYPI_INDEX={INDEX}",
        f"\ufeffTANDEM_PYPI_INDEX={INDEX}\r\nTANDEM_PORT=9000\r\n",
        f"TANDEM_PORT=9000\r\nTANDEM_PYPI_INDEX = '{INDEX}' # mine\r\n",
        f'export TANDEM_PYPI_INDEX="{INDEX}"\n',
        f"TANDEM_PYPI_INDEX=https://old.example.org\n#TANDEM_PYPI_INDEX=x\n  TANDEM_PYPI_INDEX={INDEX}  # mine\n",
        f"NOT_TANDEM_PYPI_INDEX=https://x\nTANDEM_PYPI_INDEX={INDEX}\nTANDEM_PYPI_INDEX_2=https://y\n",
    ],
)
def test_pip_gets_the_index_of_dot_env_however_the_line_is_written(tmp_path: Path, text: str, locale: str) -> None:
    (tmp_path / ".env").write_bytes(text.encode())
    assert given(tmp_path, LC_ALL=locale) == {"PIP_INDEX_URL": INDEX}


def test_pip_gets_proxies_and_authorities_as_this_machine_reaches_them(tmp_path: Path) -> None:
    bundle = tmp_path / "own authorities.pem"
    bundle.touch()
    (tmp_path / ".env").write_text(
        "HTTPS_PROXY='http://me:a#\"s $ecret@host.docker.internal:7890'\nHTTP_PROXY=\nNO_PROXY=localhost,.example.org\n"
        f"TANDEM_CA_BUNDLE={bundle}\nTANDEM_PYPI_INDEX=http://host.docker.internal:3141/simple\n"
    )
    assert given(tmp_path) == {
        "https_proxy": 'http://me:a#"s $ecret@127.0.0.1:7890',
        "no_proxy": "localhost,.example.org",
        "PIP_CERT": str(bundle),
        "PIP_INDEX_URL": "http://127.0.0.1:3141/simple",
        "REQUESTS_CA_BUNDLE": str(bundle),
    }


@pytest.mark.parametrize("value", ["/nonexistent.pem", "own.pem", "/"])
def test_authorities_that_are_no_file_are_named_before_pip_is_asked(tmp_path: Path, value: str) -> None:
    (tmp_path / "own.pem").touch()
    script = f". {ROOT}/scripts/pip-settings; pip_settings; echo reached"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "TANDEM_CA_BUNDLE": value},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f'error: TANDEM_CA_BUNDLE: should be the whole path of a file that is there, beginning with /, got "{value}"\n'
    )


def test_the_shell_beats_dot_env_and_what_pip_is_set_up_with_holds_where_nothing_is_set(tmp_path: Path) -> None:
    assert given(tmp_path, PIP_INDEX_URL="https://pip.example.org") == {"PIP_INDEX_URL": "https://pip.example.org"}
    (tmp_path / ".env").write_text("TANDEM_PYPI_INDEX=https://file.example.org\nTANDEM_CA_BUNDLE=/etc/own.pem\n")
    assert given(tmp_path, TANDEM_PYPI_INDEX=INDEX, TANDEM_CA_BUNDLE="") == {"PIP_INDEX_URL": INDEX}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder in which setup lacks nothing but the packages."""
    files = [f"requirements/{name}.txt" for name in ("run", "plot", "dev")]
    for name in ("scripts/setup", "scripts/pip-settings", "pyproject.toml", *files):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    tools = [(f"bin/{name}", DOCKER) for name in ("docker", "debootstrap", "ip", "git", "patch")]
    for name, text in (*tools, (".venv/bin/python", PIP)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "bundle").mkdir()
    pythons = {"pythons": {f"{sys.version_info.major}.{sys.version_info.minor}": ""}}
    (tmp_path / "bundle/manifest.json").write_text(json.dumps(pythons))
    return tmp_path


def setup(checkout: Path, *options: str) -> list[str]:
    """Run it; the requirements that pip was asked to install."""
    (checkout / "argv").write_text("")
    # The interpreter's own folder, so that setup finds one that fits.
    path = f"{checkout}/bin:{Path(sys.executable).resolve().parent}:/usr/bin:/bin"
    done = subprocess.run(
        ["scripts/setup", *options], cwd=checkout, env={"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in (checkout / "argv").read_text().splitlines()]
    return [Path(words[-1]).stem for words in lines if "--require-hashes" in words]


def test_setup_installs_what_it_is_asked_for_once(checkout: Path) -> None:
    assert setup(checkout) == ["run"]
    assert setup(checkout) == []
    assert setup(checkout, "--plot") == ["plot"]
    assert setup(checkout) == setup(checkout, "--plot") == []
    assert setup(checkout, "--dev") == ["dev"]
    # Which holds all of the others.
    assert setup(checkout) == setup(checkout, "--plot") == setup(checkout, "--plot", "--dev") == []


def test_an_environment_of_an_older_commit_gets_what_is_new(checkout: Path) -> None:
    new = checkout / "requirements/dev.txt"
    old = new.read_text().replace("matplotlib==", "# matplotlib==")
    now = new.read_text()
    new.write_text(old)
    assert setup(checkout, "--dev") == ["dev"]
    new.write_text(now)
    assert setup(checkout, "--dev") == ["dev"]
    assert setup(checkout, "--dev") == []


def test_what_other_versions_replaced_is_no_longer_there(checkout: Path) -> None:
    run = checkout / "requirements/run.txt"
    now = run.read_text()
    assert setup(checkout, "--dev") == ["dev"]
    run.write_text(now + "# of another commit\n")
    assert setup(checkout) == ["run"]
    run.write_text(now)
    assert setup(checkout, "--dev") == ["dev"]


@pytest.mark.parametrize("option", ["--dev", "--plot"])
def test_a_bundle_has_only_what_the_commands_need(checkout: Path, option: str) -> None:
    done = subprocess.run(
        ["scripts/setup", "--offline", "bundle", option], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"setup: a bundle holds nothing for {option}; leave it out with --offline\n"


def test_requirements_with_more_in_them_pin_the_same_versions() -> None:
    pins = {
        name: set(re.findall(r"^[a-z0-9.-]+==\S+", (ROOT / f"requirements/{name}.txt").read_text(), re.MULTILINE))
        for name in ("run", "plot", "dev", "activator")
    }
    assert pins["run"] < pins["plot"] < pins["dev"]
    assert pins["run"] < pins["activator"] < pins["dev"]
    assert [pin for pin in pins["plot"] if pin.startswith("matplotlib==")]
    assert not [pin for name in ("run", "activator") for pin in pins[name] if pin.startswith(("matplotlib", "numpy"))]


@pytest.mark.parametrize(("options", "index"), [([], INDEX), (["--offline", "bundle"], "")])
def test_setup_gives_pip_the_settings_by_environment_alone_and_none_offline(
    checkout: Path, options: list[str], index: str
) -> None:
    (checkout / ".env").write_text(f"TANDEM_PYPI_INDEX={INDEX}\nHTTPS_PROXY=http://me:secret@proxy.example.org:1\n")
    setup(checkout, *options)
    words = (checkout / "argv").read_text()
    assert "install -qq" in words
    assert ("--no-index" in words) == bool(options)
    assert "example.org" not in words
    assert f"PIP_INDEX_URL={index}\n" in (checkout / "environment").read_text()
    assert ("https_proxy=http://me:secret@" in (checkout / "environment").read_text()) == (not options)


def test_lock_gives_uv_the_settings() -> None:
    lock = script("scripts/lock.py")
    values = {
        "TANDEM_PYPI_INDEX": "http://host.docker.internal:3141/simple",
        "HTTPS_PROXY": "http://host.docker.internal:7890",
        "TANDEM_CA_BUNDLE": "/etc/own.pem",
    }
    assert lock.environment(Settings(values, ()), {"HOME": "/root"}) == {
        "HOME": "/root",
        "UV_DEFAULT_INDEX": "http://127.0.0.1:3141/simple",
        "https_proxy": "http://127.0.0.1:7890",
        "SSL_CERT_FILE": "/etc/own.pem",
    }
