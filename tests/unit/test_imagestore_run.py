"""A program that runs in a container for a limited time: how it is asked for, and what becomes of it in each end."""

from typing import Any

import pytest
from docker.errors import APIError
from requests.exceptions import ConnectionError as Gone
from requests.exceptions import ReadTimeout

from orchestrator import imagestore
from orchestrator.errors import TandemError
from orchestrator.imagestore import Ran


class Api:
    """The Engine's API, as far as it is used; waits is what its wait gives, or raises."""

    def __init__(self, waits: Any) -> None:
        self.waits = waits
        self.refusal: Exception | None = None
        self.did: list[str] = []
        self.host: dict[str, Any] = {}
        self.made: dict[str, Any] = {}

    def create_host_config(self, **said: Any) -> dict[str, Any]:
        self.host = said
        return said

    def create_container(self, image: str, **said: Any) -> None:
        self.did.append(f"create {image}")
        self.made = said

    def put_archive(self, name: str, path: str, archive: bytes) -> None:
        self.did.append(f"put into {path}")

    def start(self, name: str) -> None:
        if self.refusal:
            raise self.refusal
        self.did.append("start")

    def wait(self, name: str, timeout: int) -> dict[str, int]:
        self.did.append(f"wait {timeout}")
        if isinstance(self.waits, Exception):
            raise self.waits
        return {"StatusCode": self.waits}

    def logs(self, name: str, *, stdout: bool, stderr: bool) -> bytes:
        return b"said\n" if stdout else b"told\n"

    def remove_container(self, name: str, force: bool) -> None:
        assert name == self.made["name"]
        self.did.append("remove")

    def containers(self) -> list[dict[str, Any]]:
        project, service = "com.docker.compose.project", "com.docker.compose.service"
        return [
            {"Id": "a" * 64, "Labels": {project: "tandem", service: "qwen-14b"}},
            {"Id": "b" * 64, "Labels": {project: "other", service: "qwen-14b"}},
            {"Id": "c" * 64, "Labels": None},
        ]


class Engine:
    project = "tandem"

    def __init__(self, api: Api) -> None:
        self.client = type("Client", (), {"api": api})()


def ran(api: Api, seconds: float = 20, **more: Any) -> Ran:
    return imagestore.run_for(Engine(api), "image", ["a", "b"], {"/x": b"1"}, seconds=seconds, **more)  # type: ignore[arg-type]


def test_it_is_run_as_a_server_is_and_is_gone_afterwards() -> None:
    api = Api(3)
    assert ran(api, 19.5, gpus=[0, 1], environment={"A": "1"}, shm="8gb") == Ran(3, "said\n", "told\n")
    assert api.did == ["create image", "put into /", "start", "wait 20", "remove"]
    (request,) = api.host.pop("device_requests")
    assert (request.driver, request.device_ids, request.capabilities) == ("nvidia", ["0", "1"], [["gpu"]])
    del api.host["log_config"]
    assert api.host == {
        "network_mode": "none", "shm_size": "8gb", "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"],
    }  # fmt: skip
    assert (api.made["entrypoint"], api.made["environment"]) == (["a", "b"], {"A": "1"})
    assert api.made["labels"] == {"com.docker.compose.project": "", "com.docker.compose.service": ""}


def test_without_gpus_none_are_reserved() -> None:
    api = Api(0)
    assert ran(api).code == 0
    assert api.host["device_requests"] is None


def test_one_that_does_not_end_in_its_time_is_removed_and_has_no_code() -> None:
    api = Api(ReadTimeout("read timed out"))
    assert ran(api, 0) == Ran(None, "", "")
    assert api.did[-1] == "remove"


def test_a_daemon_that_goes_is_no_hang() -> None:
    api = Api(Gone("connection refused"))
    with pytest.raises(TandemError, match="Docker gave no answer"):
        ran(api, 60)
    assert api.did[-1] == "remove"


def test_a_container_that_cannot_be_removed_is_left_as_it_is() -> None:
    api = Api(0)

    def remove_container(name: str, force: bool) -> None:
        raise ReadTimeout("it does not go")

    api.remove_container = remove_container  # type: ignore[method-assign]
    assert ran(api).code == 0


def test_what_the_engine_refuses_is_told() -> None:
    api = Api(0)
    api.refusal = APIError("x", explanation="could not select device driver")
    with pytest.raises(TandemError, match="Docker refused: could not select device driver"):
        ran(api, gpus=[0])
    assert api.did == ["create image", "put into /", "remove"]


def test_all_that_runs_is_named_with_the_services_of_this_project() -> None:
    engine: Any = Engine(Api(0))
    assert imagestore.running(engine) == {"a" * 64: "qwen-14b", "b" * 64: "", "c" * 64: ""}
