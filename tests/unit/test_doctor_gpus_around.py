"""What is known around the GPUs, asked of a stand-in for Docker."""

from dataclasses import replace
from typing import Any

from orchestrator.doctor.gpus import Around
from orchestrator.doctor.gpus_around import around
from orchestrator.doctor.nccl import Result, Tried
from tests.unit.values import profile, project

SERVICE, PROJECT = "com.docker.compose.service", "com.docker.compose.project"


class Api:
    def containers(self) -> list[dict[str, Any]]:
        mine = {PROJECT: "tandem"}
        return [
            {"Id": "1", "Labels": {**mine, SERVICE: "qwen-14b"}},
            {"Id": "2", "Labels": {**mine, SERVICE: "router"}},
            {"Id": "3", "Labels": {PROJECT: "other", SERVICE: "qwen-14b"}},
        ]


class Engine:
    project = "tandem"
    client = type("Client", (), {"api": Api()})()

    def image_ids(self) -> dict[str, str]:
        return {"a:1": "sha256:1"}


def test_servers_of_this_project_are_ours_and_the_rest_merely_runs() -> None:
    kept = {Tried("sha256:1", "x", "580.1", (0, 1)): Result("works", "nccl")}
    engine: Any = Engine()
    found = around(replace(project(profile()), reduced=kept), engine)
    assert found == Around(frozenset({"1", "2", "3"}), {"1": "qwen-14b"}, {"a:1": "sha256:1"}, kept)
