"""apply-patches.py on small trees, with the real `patch`: all patches are applied, or nothing is changed."""

import hashlib
import json
import py_compile
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.values import script

main = script("docker/vllm/install/apply-patches.py").main
ANSWER = """def answer():
    # one
    # two
    # three
    return 1
"""
FIRST = """Fault: none
--- a/vllm/answer.py
+++ b/vllm/answer.py
@@ -1,5 +1,6 @@
 def answer():
     # one
     # two
+    # more
     # three
     return 1
"""
SECOND = """--- a/vllm/answer.py
+++ b/vllm/answer.py
@@ -3,4 +3,4 @@
     # two
     # more
     # three
-    return 1
+    return 2
"""
SERIES = "# comment\n\nfirst.patch >=0.7.3,<0.10.0\nsecond.patch >=0.7.3\n"


class Tree:
    """A vLLM of one file, and a folder of patches."""

    def __init__(self, folder: Path) -> None:
        self.site, self.patches, self.record = folder / "site", folder / "patches", folder / "tandem/patches.json"
        self.file = self.site / "vllm/answer.py"
        self.file.parent.mkdir(parents=True)
        self.patches.mkdir()
        self.file.write_text(ANSWER)
        self.write(series=SERIES, first=FIRST, second=SECOND)

    def write(self, *, series: str | None = None, **patches: str) -> None:
        if series is not None:
            (self.patches / "series").write_text(series)
        for name, text in patches.items():
            (self.patches / f"{name}.patch").write_text(text)

    def apply(self, version: str = "0.9.0") -> int:
        return int(main([version, str(self.patches), "--site", str(self.site), "--record", str(self.record)]))

    def untouched(self) -> bool:
        files = [path for path in self.site.rglob("*") if path.is_file()]
        return files == [self.file] and self.file.read_text() == ANSWER and not self.record.exists()


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def test_patches_are_applied_one_upon_another_and_written_down(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    assert tree.apply() == 0
    assert tree.file.read_text() == ANSWER.replace("# two\n", "# two\n    # more\n").replace("1", "2")
    assert capsys.readouterr() == ("applied first.patch\napplied second.patch\n", "")
    assert json.loads(tree.record.read_text()) == [
        {"name": f"{name}.patch", "sha256": hashlib.sha256(text.encode()).hexdigest()}
        for name, text in (("first", FIRST), ("second", SECOND))
    ]
    assert {path.suffix for path in tree.site.rglob("*") if path.is_file()} == {".py", ".pyc"}


def test_a_version_without_patches_gets_none(tree: Tree) -> None:
    assert tree.apply("0.7.2") == 0
    assert tree.file.read_text() == ANSWER
    assert json.loads(tree.record.read_text()) == []


def test_python_takes_the_patched_file_and_not_what_was_compiled_before(tree: Tree) -> None:
    # As an installer may: such a file is taken whatever becomes of its source.
    py_compile.compile(str(tree.file), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    answer = [sys.executable, "-c", "from vllm.answer import answer; print(answer())"]
    tree.write(first=FIRST.replace("+    # more", "+    return 3"))
    assert subprocess.check_output(answer, cwd=tree.site) == b"1\n"
    tree.write(series="first.patch ==0.9.0\n")
    assert tree.apply() == 0
    assert subprocess.check_output(answer, cwd=tree.site) == b"3\n"


@pytest.mark.parametrize(
    ("second", "why"),
    [
        (SECOND.replace("# three", "# drei"), "Hunk #1 FAILED at 3."),
        # The context is another in one line alone, which `patch` would overlook with its usual fuzz.
        (SECOND.replace("     # two", "     # zwei"), "Hunk #1 FAILED at 3."),
        (FIRST.replace("Fault: none\n", ""), "Reversed (or previously applied) patch detected!  Skipping patch."),
        (SECOND.replace("-3,4 +3,4", "-3,9 +3,9"), "patch: **** "),
    ],
    ids=["other lines", "another line of context", "applied already", "no patch"],
)
def test_a_patch_that_does_not_apply_is_named_and_nothing_is_changed(
    tree: Tree, second: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.write(second=second)
    assert tree.apply() == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: second.patch does not apply to vllm/answer.py: {why}")
    assert err.endswith("(vLLM 0.9.0); see docs/patches.md\n")
    assert err.count("\n") == 1
    assert tree.untouched()


def test_a_patch_of_a_file_that_is_not_there_is_named_and_nothing_is_changed(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree.write(second=SECOND.replace("answer.py", "question.py"))
    assert tree.apply() == 1
    missing = tree.site / "vllm/question.py"
    assert f"error: second.patch changes {missing}, which is not there (vLLM 0.9.0)" in capsys.readouterr().err
    assert tree.untouched()
