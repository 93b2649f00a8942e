"""docker/vllm/versions.toml: which versions of vLLM there are, and what each image variant of one is called. Pure."""

import tomllib
from dataclasses import dataclass


@dataclass(frozen=True)
class Versions:
    """The versions that can be built: builds[version][image variant] is the end of an image's tag, such as cu130."""

    default: str
    builds: dict[str, dict[str, str]]

    def tag(self, version: str, image: str) -> str:
        """Name the image of a version and variant: tandem/vllm:0.32.0-cu130."""
        return f"tandem/vllm:{version}-{self.builds[version][image]}"


def load(text: str) -> Versions:
    """Read versions.toml's text. Raises what tomllib raises, or KeyError: the file is ours."""
    data = tomllib.loads(text)
    versions = Versions(data["default"], data["builds"])
    versions.builds[versions.default]
    return versions
