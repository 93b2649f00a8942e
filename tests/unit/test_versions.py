"""versions.toml names the versions of vLLM and the tags of their images."""

import pytest

from orchestrator import versions

TEXT = """
default = "2.0"
[builds."2.0"]
cuda = "cu130"
cpu = "cpu"
[builds."1.0"]
cuda = "cu124"
"""


@pytest.mark.parametrize(
    ("version", "image", "tag"),
    [
        ("2.0", "cuda", "tandem/vllm:2.0-cu130"),
        ("2.0", "cpu", "tandem/vllm:2.0-cpu"),
        ("1.0", "cuda", "tandem/vllm:1.0-cu124"),
    ],
)
def test_a_tag_names_the_version_and_the_build(version: str, image: str, tag: str) -> None:
    assert versions.load(TEXT).tag(version, image) == tag


def test_the_default_is_one_of_the_builds() -> None:
    assert versions.load(TEXT).default == "2.0"
    with pytest.raises(KeyError, match=r"3\.0"):
        versions.load(TEXT.replace('default = "2.0"', 'default = "3.0"'))
