"""What verify-image runs in an image: architectures are read from fatbins, programs that fail are told of."""

import struct
from importlib.metadata import distributions
from pathlib import Path

import pytest

from orchestrator import cli_verify
from tests.unit.values import ROOT, script

inside = script("docker/vllm/verify/inside.py")

PTX, SASS = 1, 2
PLAIN, SPECIFIC = 0x8011, 0x108011


def fatbin(*entries: tuple[int, int, int]) -> bytes:
    """A fatbin as nvcc writes it; of each entry its kind, its architecture and its flags."""
    body = b""
    for kind, architecture, flags in entries:
        payload = b"\x50\xed\x55\xba...."  # the magic number may be in code too
        head = struct.pack("<HHIQIIHHIIIQ", kind, 0x101, 64, len(payload), 0, 0, 8, 1, architecture, 0, 0, flags)
        body += head.ljust(64, b"\0") + payload
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def elf(**sections: bytes) -> bytes:
    """A 64-bit ELF file of nothing but sections; a name's first _ stands for a dot."""
    listed = {"": b"", **{name.replace("_", ".", 1): content for name, content in sections.items()}, ".names": b""}
    listed[".names"] = b"\0".join(name.encode() for name in listed) + b"\0"
    body, heads, at = b"", b"", 64
    for name, content in listed.items():
        place = listed[".names"].index(name.encode() + b"\0")
        heads += struct.pack("<IIQQQQIIQQ", place, 1, 0, 0, at + len(body), len(content), 0, 0, 1, 0)
        body += content.ljust(-(-len(content) // 8) * 8, b"\0")
    start = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 0, at + len(body), 0, 64, 0, 0, 64,
                        len(listed), len(listed) - 1)  # fmt: skip
    return start + body + heads


def architectures(tmp_path: Path, content: bytes) -> list[str]:
    path = tmp_path / "_C.abi3.so"
    path.write_bytes(content)
    return list(inside.architectures(path))


def test_every_architecture_of_every_fatbin_is_found(tmp_path: Path) -> None:
    first = fatbin((SASS, 90, SPECIFIC), (SASS, 120, PLAIN), (PTX, 80, PLAIN))
    content = first + b"\0" * 8 + fatbin((SASS, 89, PLAIN), (SASS, 90, PLAIN))
    found = architectures(tmp_path, elf(_text=b"code", _nv_fatbin=content, _data=fatbin((SASS, 75, PLAIN))))
    assert found == ["sm_89", "sm_90", "sm_90a", "sm_120", "compute_80"]


def test_a_library_without_cuda_has_none(tmp_path: Path) -> None:
    assert architectures(tmp_path, elf(_text=b"code")) == []


def test_an_entry_that_is_neither_ptx_nor_sass_is_no_code(tmp_path: Path) -> None:
    assert architectures(tmp_path, elf(_nv_fatbin=fatbin((64, 89, PLAIN), (SASS, 80, PLAIN)))) == ["sm_80"]


def test_a_format_that_is_not_known_is_refused_and_read_no_further(tmp_path: Path) -> None:
    broken = fatbin((SASS, 89, PLAIN)).replace(
        struct.pack("<HHI", SASS, 0x101, 64), struct.pack("<HHI", SASS, 0x101, 0)
    )
    with pytest.raises(ValueError, match="a header of 0 bytes"):
        architectures(tmp_path, elf(_nv_fatbin=broken))


def test_a_program_that_is_not_there_is_an_answer_and_no_crash() -> None:
    assert inside.run(["no-such-program"]) == (127, "", "no-such-program: there is no such program")


def test_what_went_wrong_is_in_the_last_line() -> None:
    assert inside.last("Traceback:\n  x\nImportError: no y\n\n") == "ImportError: no y"
    assert inside.last(" \n") == "it said nothing"


@pytest.mark.parametrize(
    ("probe", "fault"),
    [
        ("""print('noise'); print('{"name": "lora", "fault": null}')""", None),
        ("""print('{"name": "lora", "fault": "ImportError: x"}')""", "ImportError: x"),
        ("raise SystemExit('no module')", "the probe failed (exit 1): no module"),
        ("print('{}')", "the probe failed (exit 0): it said nothing"),
        ("print('null')", "the probe failed (exit 0): it said nothing"),
        ("import os; print('{\"fault\": \"%s\"}' % os.environ['MODELSCOPE_ENDPOINT'])", "http://127.0.0.1:1"),
    ],
)
def test_a_probe_that_says_nothing_clear_counts_as_a_fault(tmp_path: Path, probe: str, fault: str | None) -> None:
    (tmp_path / "faults.py").write_text(probe)
    assert inside.fault("lora", "http://127.0.0.1:1", tmp_path) == fault


def test_files_that_packages_have_in_common_are_told_of_unless_they_are_alike(tmp_path: Path) -> None:
    records = {
        "one": "a.py,sha256=AA,1\nb.py,sha256=BB,1\nbuild_backend.py,sha256=AA,1\n../bin/a,sha256=AA,1\nc.pyc,,\n",
        "two": "a.py,sha256=XX,1\nb.py,sha256=BB,1\nbuild_backend.py,sha256=XX,1\n../bin/a,sha256=XX,1\n",
    }
    for name, lines in records.items():
        about = tmp_path / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (about / "RECORD").write_text(lines)
    for name in ("a.py", "b.py", "build_backend.py", "c.pyc"):
        (tmp_path / name).touch()
    assert inside.shared([str(tmp_path)]) == {"a.py": ["one 1.0", "two 1.0"]}


def test_the_probes_get_a_hub_that_serves_their_model(tmp_path: Path) -> None:
    (tmp_path / "faults.py").write_text(
        "import json, os, urllib.request\n"
        "def make_repository(root):\n"
        "    (root / 'org/name').mkdir(parents=True)\n"
        "    (root / 'org/name/config.json').write_text('{}')\n"
        "if __name__ == '__main__':\n"
        "    address = os.environ['MODELSCOPE_ENDPOINT'] + '/api/v1/models/org/name/repo/files'\n"
        "    answer = json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address))\n"
        "    print(json.dumps({'fault': answer['Data']['Files'][0]['Path']}))\n"
    )
    for name in cli_verify.FILES[2:]:
        (tmp_path / Path(name).name).write_bytes((ROOT / name).read_bytes())
    assert inside.faults(["lora"], tmp_path) == {"lora": "config.json"}


def test_no_patches_are_listed_where_nothing_lists_them(tmp_path: Path) -> None:
    listed = tmp_path / "patches.json"
    assert inside.applied(listed) == []
    listed.write_text('[{"name": "lora.patch", "sha256": "0"}]')
    assert inside.applied(listed) == ["lora.patch"]


def test_vllm_finds_a_platform_by_its_plugins(tmp_path: Path) -> None:
    inside.platform(tmp_path)
    (found,) = distributions(path=[str(tmp_path)])
    (plugin,) = found.entry_points.select(group="vllm.platform_plugins")
    assert plugin.value == "tandem_platform:cpu"
    assert (tmp_path / "tandem_platform.py").is_file()
