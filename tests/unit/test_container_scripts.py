"""The server's entrypoint: what it lets through, and which weights it serves to nobody."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gate
import pytest
from weights import manifest

from tests.unit.models import NAME, whole
from tests.unit.values import ROOT


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["bash"],
        ["vllm", "--version"],
        ["vllm", "serve"],
        ["python3", "/opt/tandem/healthcheck.py", "/models/no-such/model"],
        # By its id: vLLM fetches the model itself.
        ["vllm", "serve", "Qwen/Qwen2.5-14B-Instruct", "--served-model-name", "qwen-14b"],
        ["vllm", "serve", "/models-of-someone-else/model"],
    ],
)
def test_the_gate_lets_through_what_serves_no_folder(argv: list[str]) -> None:
    assert gate.missing_weights(argv) is None


@pytest.mark.parametrize(
    ("folder", "fault"),
    [
        ("/models/no-such-org/no-such-model", "is not there, not whole, or was found damaged"),
        ("/local/no-such-profile", "holds no config.json"),
    ],
)
def test_the_gate_says_which_folder_holds_no_model_and_starts_nothing(
    folder: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["vllm", "serve", folder, "--served-model-name", "x"]
    assert gate.missing_weights(argv) == f"weights missing: {folder} {fault}"
    assert gate.main(argv) == 1
    assert capsys.readouterr() == ("", f"tandem: weights missing: {folder} {fault}\n")


def gated(models: Path) -> str:
    """What the gate says of the model in a volume that is here."""
    text = (ROOT / "docker/vllm/gate.py").read_text(encoding="utf-8").replace('"/models"', repr(str(models)))
    program = text.partition("if __name__")[0] + "print(missing_weights(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", program, "vllm", "serve", str(models / NAME)],
        env={"PYTHONPATH": str(ROOT / "docker/vllm")}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.strip()


def test_a_model_that_was_pulled_whole_is_served(tmp_path: Path) -> None:
    whole(tmp_path / NAME)
    assert gated(tmp_path) == "None"


@pytest.mark.parametrize("change", ["half", "no manifest", "a manifest that is no manifest", "not checked"])
def test_a_model_that_is_not_whole_is_served_to_nobody(tmp_path: Path, change: str) -> None:
    folder = tmp_path / NAME
    model = whole(folder)
    match change:
        case "half":
            (folder / "model.safetensors").write_bytes(b"half")
        case "no manifest":
            (folder / manifest.NAME).unlink()
        case "a manifest that is no manifest":
            (folder / manifest.NAME).write_text('{"format": 2, "checked": null}')
        case _:
            manifest.write(folder / manifest.NAME, replace(model, checked={}))
    assert gated(tmp_path) == f"weights missing: {folder} is not there, not whole, or was found damaged"
