"""The keys that clients send: how the file is read and written, and the commands that change it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import keyfile, keys
from orchestrator.errors import ConfigError, TandemError
from orchestrator.keys import Key
from tests.unit.test_main import MODELS, VERSIONS, tandem
from tests.unit.values import in_order, profile
from tests.unit.values import project as whole

LONG = "0123456789abcdef"
OTHER = "another-key-of-27-signs...."
LINE = "should be NAME KEY [rate=N/s, N/m or N/h] [concurrent=N], the key of 16 signs at the least"
OPTIONS = "has words after the key that are not one rate= and one concurrent="
NAMES = "NAME: should be a name of at most 64 letters, digits, dots, underscores and dashes, a letter or digit first"
RATE = "rate: should be a number of requests and /s, /m or /h, such as 60/m"
COUNT = "concurrent: should be a number of requests at once, such as 4"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small project that is in order, with the folder for keys."""
    ignored = in_order(tmp_path, MODELS, VERSIONS) / "docker/router/keys/.gitignore"
    ignored.parent.mkdir(parents=True)
    ignored.write_text("*\n", encoding="utf-8")
    return tmp_path


def file(folder: Path) -> Path:
    return folder / "docker/router/keys/keys"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("\n  \n# none yet\n", []),
        (f"alice {LONG}\n", [Key("alice", LONG)]),
        (f"alice {LONG}", [Key("alice", LONG)]),
        (f"\talice \t {LONG}  \r\nbob {OTHER}\r\n", [Key("alice", LONG), Key("bob", OTHER)]),
        (f"alice {LONG} rate=60/m concurrent=4 # hers\n", [Key("alice", LONG, "60/m", 4)]),
        (f"alice {LONG} concurrent=1 rate=5/s\n", [Key("alice", LONG, "5/s", 1)]),
        (f"a.b_c-9 {LONG}#not-a-comment rate=1/h\n", [Key("a.b_c-9", f"{LONG}#not-a-comment", "1/h")]),
    ],
)
def test_a_file_of_keys_has_a_line_for_each(text: str, found: list[Key]) -> None:
    assert keys.parse(text, "keys") == found


@pytest.mark.parametrize(
    ("line", "fact"),
    [
        ("alice", LINE),
        ("alice short", LINE),
        (f"alice {LONG}é", LINE),
        (f"alice # {LONG}", LINE),
        (f"alice {LONG} rate=60", f'{RATE}, got "60"'),
        (f"alice {LONG} rate=0/m", f'{RATE}, got "0/m"'),
        (f"alice {LONG} concurrent=0", f'{COUNT}, got "0"'),
        (f"alice {LONG} concurrent=two", f'{COUNT}, got "two"'),
        (f"alice {LONG} {OTHER}", OPTIONS),
        (f"alice {LONG} rate=", OPTIONS),
        (f"alice {LONG} rate=1/s rate=2/s", OPTIONS),
        (f"al/ice {LONG}", f'{NAMES}, got "al/ice"'),
        (f"{'a' * 65} {LONG}", f'{NAMES}, got "{"a" * 65}"'),
        (f"bob {LONG}", "bob has a key already, in an earlier line"),
        (f"carol {OTHER}", "carol has the same key as bob"),
    ],
)
def test_a_line_that_is_wrong_is_named_with_its_number_and_no_key(line: str, fact: str) -> None:
    with pytest.raises(ConfigError) as caught:
        keys.parse(f"# keys\nbob {OTHER}\n{line}\n", "/run/keys")
    assert caught.value.problems == [f"/run/keys: line 3: {fact}"]
    assert LONG not in str(caught.value)
    assert OTHER not in str(caught.value)


@pytest.mark.parametrize("before", ["", "# ours\n", f"bob {OTHER}", f"bob {OTHER}\r\n"])
def test_what_is_added_is_found_again_beside_what_was_there(before: str) -> None:
    made = Key("alice", LONG, "60/m", 4)
    text = keys.added(before, made)
    assert text.startswith(before)
    assert keys.parse(text, "keys") == [*keys.parse(before, "keys"), made]
    assert keys.parse(keys.removed(text, "alice", "keys"), "keys") == keys.parse(before, "keys")


def test_what_is_removed_takes_its_line_and_no_other() -> None:
    text = f"# alice and bob\nalice {LONG} # hers\n\nbob {OTHER}"
    assert keys.removed(text, "alice", "keys") == f"# alice and bob\n\nbob {OTHER}"
    with pytest.raises(TandemError, match=r"^carol: no such key; there are: alice, bob$"):
        keys.removed(text, "carol", "keys")
    with pytest.raises(TandemError, match=r"^carol: no such key; there is none at all$"):
        keys.removed("", "carol", "keys")


@pytest.mark.parametrize(("user", "rights"), [(0, 0o600), (1000, 0o600), (1001, 0o644)])
def test_the_file_is_for_the_router_and_for_nobody_else_who_need_not_read_it(
    tmp_path: Path, user: int, rights: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []
    monkeypatch.setattr("os.fchown", lambda _handle, owner, _group: given.append(owner))
    path = tmp_path / "keys/keys"
    for text in ("one\n", "two\n"):
        keyfile.write(path, text, user=user)
        assert (path.stat().st_mode & 0o777, path.read_text()) == (rights, text)
    assert given == ([1000, 1000] if user == 0 else [])
    assert [found.name for found in path.parent.iterdir()] == ["keys"]


def test_a_file_that_cannot_be_written_is_told_so_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.mkdir()
    (path / "x").touch()
    with pytest.raises(TandemError, match=f"^{path}: cannot be written: "):
        keyfile.write(path, "text", user=1000)
    assert [found.name for found in tmp_path.iterdir()] == ["keys"]


def test_a_key_is_shown_once_and_its_end_from_then_on(folder: Path) -> None:
    done = tandem(folder, "keys", "add", "alice", "--rate", "60/m", "--concurrent", "4")
    made = done.stdout.strip()
    assert (done.returncode, made[:4], len(made)) == (0, "tdm-", 47), done.stderr
    assert keys.parse(file(folder).read_text(), "keys") == [Key("alice", made, "60/m", 4)]
    assert "within two seconds, without a restart" in done.stderr
    assert "from now on every request needs a key" in done.stderr
    assert made not in done.stderr
    again = tandem(folder, "keys", "add", "bob")
    assert "from now on" not in again.stderr
    assert again.stdout.strip() != made
    listed = tandem(folder, "keys", "list")
    assert [line.split() for line in listed.stdout.splitlines()] == [
        ["NAME", "RATE", "AT", "ONCE", "KEY"],
        ["alice", "60/m", "4", f"...{made[-4:]}"],
        ["bob", "-", "-", f"...{again.stdout.strip()[-4:]}"],
    ]
    assert json.loads(tandem(folder, "keys", "list", "--json").stdout)[0] == {
        "name": "alice", "rate": "60/m", "concurrent": 4, "ends": made[-4:],
    }  # fmt: skip
    for name, last in (("alice", False), ("bob", True)):
        done = tandem(folder, "keys", "remove", name)
        assert (done.returncode, done.stdout) == (0, "")
        assert ("no key is asked for any more" in done.stderr) is last
    assert tandem(folder, "keys", "list").stdout.startswith("no keys: none is asked for. ")
    assert json.loads(tandem(folder, "keys", "list", "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "al ice"], f'{NAMES}, got "al ice"'),
        (["add", "bob"], "bob: there is such a key already; 'keys remove bob' takes it away"),
        (["add", "alice", "--rate", "60"], f'{RATE}, got "60"'),
        (["add", "alice", "--concurrent", "none"], f'{COUNT}, got "none"'),
        (["remove", "alice"], "alice: no such key; there are: bob"),
    ],
)
def test_what_cannot_be_is_an_error_line_and_changes_nothing(folder: Path, arguments: list[str], said: str) -> None:
    file(folder).write_text(f"bob {OTHER}\n")
    done = tandem(folder, "keys", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: {said}\n")
    assert file(folder).read_text() == f"bob {OTHER}\n"


def test_a_wrong_line_is_a_fault_of_the_project(folder: Path) -> None:
    file(folder).write_text(f"bob {OTHER}\nalice\n")
    done = tandem(folder, "check")
    assert (done.returncode, done.stderr) == (2, f"error: {file(folder)}: line 2: {LINE}\n")


@pytest.mark.parametrize("command", [["check"], ["up", "demo"]])
def test_other_machines_are_let_in_with_a_key_or_when_it_is_said_twice(folder: Path, command: list[str]) -> None:
    bound = {"TANDEM_BIND": "192.168.1.5", "DOCKER_HOST": "unix:///nobody"}
    done = tandem(folder, *command, **bound)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "error: TANDEM_BIND=192.168.1.5 lets other machines in, and with no key whoever reaches the port may use every"
        " model.",
        "  Make a key:  python -m orchestrator keys add NAME",
        "  or, where everybody may, put into .env:  TANDEM_BIND_WITHOUT_KEY=yes",
    ]
    assert "whoever reaches" not in tandem(folder, *command, TANDEM_BIND_WITHOUT_KEY="yes", **bound).stderr
    assert tandem(folder, "keys", "add", "alice", **bound).returncode == 0
    assert "whoever reaches" not in tandem(folder, *command, **bound).stderr


def test_check_for_scripts_says_so_too(folder: Path) -> None:
    done = tandem(folder, "check", "--json", TANDEM_BIND="0.0.0.0")
    assert done.returncode == 2
    assert [line.split(" lets ")[0] for line in json.loads(done.stdout)["problems"]] == ["TANDEM_BIND=0.0.0.0"]


def test_the_last_key_stays_while_other_machines_are_let_in(folder: Path) -> None:
    file(folder).write_text(f"bob {OTHER}\n")
    done = tandem(folder, "keys", "remove", "bob", TANDEM_BIND="0.0.0.0")
    assert (done.returncode, file(folder).read_text()) == (1, f"bob {OTHER}\n")
    assert done.stderr.startswith("error: bob: the last key: TANDEM_BIND=0.0.0.0 lets other machines in")
    assert tandem(folder, "keys", "remove", "bob", TANDEM_BIND="0.0.0.0", TANDEM_BIND_WITHOUT_KEY="yes").returncode == 0


def test_keys_may_be_in_a_folder_of_this_machine(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "secrets"
    done = tandem(folder, "keys", "add", "alice", TANDEM_KEYS_FOLDER=str(other))
    assert (done.returncode, done.stderr) == (
        2, f'error: TANDEM_KEYS_FOLDER: should be a folder that is there, got "{other}"\n',
    )  # fmt: skip
    other.mkdir()
    assert tandem(folder, "keys", "add", "alice", TANDEM_KEYS_FOLDER=str(other)).returncode == 0
    assert [path.name for path in other.iterdir()] == ["keys"]
    assert not file(folder).exists()


def test_our_own_requests_take_a_key_without_limits_where_there_is_one() -> None:
    bare = whole(profile())
    limited, free = Key("alice", LONG, "1/h"), Key("bob", OTHER)
    assert bare.client_key == ""
    assert replace(bare, client_keys=(limited,)).client_key == LONG
    assert replace(bare, client_keys=(limited, free)).client_key == OTHER
