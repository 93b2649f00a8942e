"""All of vLLM's API through the router: real clients, real vLLM on the CPU, and the same asked of the server itself."""

import asyncio
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from orchestrator import versions
from orchestrator.versions import Build
from tests.checkout import ROOT, Checkout, eventually
from tests.routing import cases, leaving, paths, schema, served
from tests.routing.compare import Answer, ask, differences
from tests.routing.leaving import asking, counted, leave, running
from tests.routing.paths import DECIDED, Decision
from tests.routing.served import MODEL, Served

pytestmark = pytest.mark.docker

WHO = "I am demo, a tiny model of Tandem for any CPU."
TALK: Any = cases.TALK
# Prints every path that a version's source names.
SCRIPT = (ROOT / "tests/routing/written.py").read_text(encoding="utf-8")
LISTED = versions.load((ROOT / "docker/vllm/versions.toml").read_text(encoding="utf-8"))
BUILDS = [build for found in LISTED.builds.values() for build in found.values()]
# What the generation of all of LONG writes: a minute and a half on 2 cores with nothing else to do.
ALL = 1_024_000
# One tool, in either client's words.
OPENAI_TOOLS: Any = [cases.TOOL]
ANTHROPIC_TOOLS: Any = [cases.LOOK]


@pytest.fixture(scope="module")
def up(images: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served.running(tmp_path_factory.mktemp("clients") / "stack", served.PROJECT) as made:
        yield made


@pytest.fixture(scope="module")
def gpt(up: Served) -> Iterator[openai.OpenAI]:
    http = openai.DefaultHttpxClient(trust_env=False)
    with openai.OpenAI(base_url=f"{up.router}/v1", api_key="none", max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture(scope="module")
def claude(up: Served) -> Iterator[anthropic.Anthropic]:
    http = anthropic.DefaultHttpxClient(trust_env=False)
    with anthropic.Anthropic(base_url=up.router, api_key="none", max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture(scope="module")
def document(up: Served) -> Any:
    return ask(up.server, "GET", "/openapi.json").json


def named(done: "subprocess.CompletedProcess[str]") -> paths.Paths:
    """What the source of a version names, as SCRIPT printed it."""
    assert done.returncode == 0, done.stderr
    return {path: frozenset(methods) for path, methods in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def written(up: Served) -> paths.Paths:
    return named(up.stack.compose("exec", "-T", MODEL, "python3", "-c", SCRIPT))


def code(answer: Answer) -> Any:
    return answer.json["error"]["code"]


# --- what was decided about every path --------------------------------------------------------------------------------


def test_nobody_has_to_decide_about_a_path_of_the_server(document: Any, written: paths.Paths) -> None:
    found = paths.of_document(document)
    # In development mode, which not every server is in, there are more of them.
    assert {"/v1/chat/completions", "/sleep", "/collective_rpc"} <= found.keys()
    assert {"/v1/audio/transcriptions", "/v1/realtime", "/pooling"} <= written.keys()
    assert paths.undecided(found) == []
    assert paths.undecided(written) == []


def test_no_path_was_decided_about_that_no_server_has(document: Any, written: paths.Paths) -> None:
    assert paths.missing(paths.of_document(document), written) == []


@pytest.mark.parametrize("decision", [d for d in DECIDED if d.way == "refused"], ids=lambda d: d.path)
def test_a_path_that_is_refused_is_not_there(up: Served, decision: Decision) -> None:
    for method in ("GET", "POST"):
        answer = ask(up.router, method, decision.example(), {"model": MODEL} if method == "POST" else None)
        assert (answer.status, code(answer)) == (404, "not_found"), method


@pytest.mark.parametrize("decision", [d for d in DECIDED if d.way != "refused"], ids=lambda d: d.path)
def test_a_path_that_is_there_takes_its_methods_and_no_other(up: Served, decision: Decision) -> None:
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE"}.difference(decision.methods):
        answer = ask(up.router, method, decision.example(), {"model": MODEL})
        assert (answer.status, code(answer)) == (405, "method_not_allowed"), method
        assert set(re.split(r", *", answer.headers["allow"])) - {"HEAD"} == set(decision.methods)


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.tag)
def test_nobody_has_to_decide_about_a_path_of_another_version(images: Checkout, build: Build) -> None:
    if images.run(["docker", "image", "inspect", build.image]).returncode != 0:
        pytest.skip(f"{build.image} is not built")
    run = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "python3", build.image, "-c", SCRIPT]
    assert paths.undecided(named(images.run(run))) == []


def test_what_is_nearly_a_path_is_not_there(up: Served) -> None:
    stems = {re.sub(r"^/v[12]|\{.*", "", decision.path).rstrip("/") for decision in DECIDED} - {""}
    near = {before + stem + after for stem in stems for before in ("", "/v1", "/v2", "/V1") for after in ("", "/more")}
    near |= {stem.upper() for stem in stems}
    # Any word may be the name of a model or the id of an answer.
    strange = [path for path in near if path not in paths.BY_PATH and not re.match("/v1/(models|responses)/", path)]
    assert len(strange) > 300
    passed = [path for path in sorted(strange) if code(ask(up.router, "POST", path, {"model": MODEL})) != "not_found"]
    assert passed == []


def test_what_the_router_answers_itself(up: Served) -> None:
    assert ask(up.router, "GET", "/health").json == {"status": "ok"}
    assert ask(up.router, "GET", "/ready").json == {"status": "ready", "models": [MODEL]}
    ours = {model["id"]: model for model in ask(up.router, "GET", "/v1/models").json["data"]}
    [its] = ask(up.server, "GET", "/v1/models").json["data"]
    assert (ours[MODEL]["object"], ours[MODEL]["max_model_len"]) == (its["object"], its["max_model_len"])
    assert ask(up.router, "GET", f"/v1/models/{MODEL}").json["id"] == MODEL


# --- the same as the server itself ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_an_answer_is_the_servers_own(up: Served, case: cases.Case) -> None:
    direct, routed = (
        ask(address, case.method, case.path, case.body, case.headers) for address in (up.server, up.router)
    )
    assert differences(direct, routed) == []
    if case in cases.GOOD:
        assert direct.status == 200, direct.body
    else:
        assert 400 <= direct.status < 500, direct.body


def test_every_path_that_passes_was_asked(up: Served) -> None:
    asked = {re.sub("resp_0", "{response_id}", case.path.partition("?")[0]) for case in cases.CASES}
    assert {decision.path for decision in DECIDED if decision.passes} <= asked


def test_an_answer_that_the_server_keeps_is_the_same_both_ways(up: Served) -> None:
    made = ask(up.router, "POST", "/v1/responses", {"model": MODEL, "input": cases.ASKED}).json
    path = f"/v1/responses/{made['id']}"
    assert differences(ask(up.server, "GET", path), ask(up.router, "GET", path)) == []
    assert ask(up.router, "GET", path).json["output"] == made["output"]


def test_a_body_in_pieces_of_no_known_length_arrives(up: Served) -> None:
    body = json.dumps({"model": MODEL, "prompt": cases.ASKED}).encode()
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    chunked = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    direct = ask(up.server, "POST", "/v1/completions", body)
    assert differences(direct, ask(up.router, "POST", "/v1/completions", pieces, chunked)) == []


# --- OpenAI's client --------------------------------------------------------------------------------------------------


def test_openai_chats(gpt: openai.OpenAI) -> None:
    chat = gpt.chat.completions
    assert chat.create(model=MODEL, messages=TALK).choices[0].message.content == WHO
    assert chat.parse(model=MODEL, messages=TALK).choices[0].message.content == WHO
    pieces = list(chat.create(model=MODEL, messages=TALK, stream=True, stream_options={"include_usage": True}))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == WHO
    assert pieces[-1].usage is not None
    with chat.stream(model=MODEL, messages=TALK) as stream:
        assert stream.get_final_completion().choices[0].message.content == WHO
    several = chat.create(model=MODEL, messages=TALK, n=2, logprobs=True, top_logprobs=2)
    assert [choice.message.content for choice in several.choices] == [WHO, WHO]
    assert several.choices[0].logprobs is not None
    with pytest.raises(openai.BadRequestError, match="tool choice requires --enable-auto-tool-choice"):
        chat.create(model=MODEL, messages=TALK, tools=OPENAI_TOOLS)


def test_openai_chats_asynchronously(up: Served) -> None:
    async def chat() -> str:
        http = openai.DefaultAsyncHttpxClient(trust_env=False)
        async with openai.AsyncOpenAI(base_url=f"{up.router}/v1", api_key="none", http_client=http) as client:
            stream = await client.chat.completions.create(model=MODEL, messages=TALK, stream=True)
            return "".join([piece.choices[0].delta.content or "" async for piece in stream if piece.choices])

    assert asyncio.run(chat()) == WHO


def test_openai_completes(gpt: openai.OpenAI) -> None:
    create = gpt.completions.create
    assert create(model=MODEL, prompt=cases.ASKED).choices[0].text == WHO
    pieces = create(model=MODEL, prompt=[cases.ASKED, cases.ASKED], n=2, stream=True)
    texts = dict.fromkeys(range(4), "")
    for piece in pieces:
        texts[piece.choices[0].index] += piece.choices[0].text
    assert texts == dict.fromkeys(range(4), WHO)
    [echoed] = create(model=MODEL, prompt=cases.ASKED, echo=True, logprobs=1).choices
    assert echoed.text == cases.ASKED + WHO
    assert echoed.logprobs is not None
    assert "".join(echoed.logprobs.tokens or []).startswith(cases.ASKED)


def test_openai_responds(gpt: openai.OpenAI) -> None:
    responses = gpt.responses
    made = responses.create(model=MODEL, input=cases.ASKED)
    assert made.output_text == WHO
    assert responses.parse(model=MODEL, input=cases.ASKED).output_text == WHO
    assert responses.retrieve(made.id).output_text == WHO
    assert responses.create(model=MODEL, input=cases.ASKED, previous_response_id=made.id).output_text
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        responses.cancel(made.id)
    with responses.stream(model=MODEL, input=cases.ASKED) as stream:
        assert stream.get_final_response().output_text == WHO


def test_openai_responds_in_the_background(up: Served, gpt: openai.OpenAI) -> None:
    responses = gpt.responses
    # It waits for its turn: however late the cancelling comes, it is not done.
    with asking(up, stream=False):
        eventually(lambda: counted(up, "vllm:num_requests_waiting") > 0, what="a server that has more than it can do")
        made = responses.create(model=MODEL, input=cases.ASKED, background=True)
        assert made.status == "queued"
        assert responses.cancel(made.id).status == "cancelled"
        assert responses.retrieve(made.id).status == "cancelled"
    eventually(lambda: running(up) == 0, what="a server with nothing to do")
    events = list(responses.create(model=MODEL, input=cases.ASKED, background=True, stream=True))
    assert events[0].type == "response.created"
    again = list(responses.retrieve(events[0].response.id, stream=True, starting_after=0))
    assert [event.type for event in again] == [event.type for event in events[1:]]


def test_openai_lists_models(gpt: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in gpt.models.list()]
    assert gpt.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        gpt.models.retrieve("gpt-4")


# A generating model embeds nothing and hears nothing: the server's own 404.
LACKING: dict[str, Callable[[openai.OpenAI], Any]] = {
    "embeddings": lambda gpt: gpt.embeddings.create(model=MODEL, input="Hi"),
    "transcriptions": lambda gpt: gpt.audio.transcriptions.create(model=MODEL, file=b"RIFF"),
}
# vLLM has none of these, whatever its model.
UNKNOWN: dict[str, Callable[[openai.OpenAI], Any]] = {
    "moderations": lambda gpt: gpt.moderations.create(model=MODEL, input="Hi"),
    "speech": lambda gpt: gpt.audio.speech.create(model=MODEL, voice="alloy", input="Hi"),
    "images": lambda gpt: gpt.images.generate(model=MODEL, prompt="Hi"),
    "files": lambda gpt: gpt.files.list(),
    "batches": lambda gpt: gpt.batches.list(),
    "fine tuning": lambda gpt: gpt.fine_tuning.jobs.list(),
    "input items": lambda gpt: gpt.responses.input_items.list("resp_0"),
}


@pytest.mark.parametrize("name", LACKING)
def test_openai_hears_from_the_server_that_its_model_cannot(gpt: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        LACKING[name](gpt)
    assert caught.value.response.json() == {"detail": "Not Found"}


@pytest.mark.parametrize("name", UNKNOWN)
def test_openai_hears_that_there_is_no_such_path(gpt: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.NotFoundError, match="There is no such path here") as caught:
        UNKNOWN[name](gpt)
    assert caught.value.code == "not_found"


# --- Anthropic's client -----------------------------------------------------------------------------------------------


def test_anthropic_talks(claude: anthropic.Anthropic) -> None:
    messages = claude.messages
    assert messages.create(model=MODEL, messages=TALK, max_tokens=60).content[0].text == WHO
    with messages.stream(model=MODEL, messages=TALK, max_tokens=60) as stream:
        assert "".join(stream.text_stream) == WHO
        assert stream.get_final_message().stop_reason == "end_turn"
    events = list(messages.create(model=MODEL, messages=TALK, max_tokens=60, stream=True))
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")
    assert messages.count_tokens(model=MODEL, messages=TALK).input_tokens > 5
    assert claude.beta.messages.create(model=MODEL, messages=TALK, max_tokens=60).content[0].text == WHO


def test_anthropic_hears_what_is_wrong(claude: anthropic.Anthropic) -> None:
    messages = claude.messages
    with pytest.raises(anthropic.BadRequestError, match="tool choice requires --enable-auto-tool-choice"):
        messages.create(model=MODEL, messages=TALK, max_tokens=60, tools=ANTHROPIC_TOOLS)
    with pytest.raises(anthropic.NotFoundError, match="The model 'claude' does not exist") as caught:
        messages.create(model="claude", messages=TALK, max_tokens=60)
    # Their own shape, as the server's error above.
    assert (caught.value.response.json()["type"], caught.value.type) == ("error", "invalid_request_error")
    with pytest.raises(anthropic.NotFoundError, match="There is no such path here"):
        messages.batches.list()
    assert MODEL in [model.id for model in claude.models.list()]
    assert claude.models.retrieve(MODEL).id == MODEL


# --- a key ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def key(up: Served) -> Iterator[str]:
    """A key that the router asks for meanwhile."""

    def asked() -> bool:
        return ask(up.router, "GET", "/v1/models").status == 401

    made = up.stack.tandem("keys", "add", "clients")
    assert made.returncode == 0, made.stderr
    eventually(asked, what="a router that asks for a key")
    yield made.stdout.strip()
    assert up.stack.tandem("keys", "remove", "clients").returncode == 0
    eventually(lambda: not asked(), what="a router that asks for no key")


def test_each_client_sends_its_key_in_its_own_way(gpt: openai.OpenAI, claude: anthropic.Anthropic, key: str) -> None:
    with pytest.raises(openai.AuthenticationError) as refused:
        gpt.models.list()
    assert refused.value.code == "wrong_key"
    with pytest.raises(anthropic.AuthenticationError):
        claude.messages.create(model=MODEL, messages=TALK, max_tokens=60)
    assert gpt.with_options(api_key=key).chat.completions.create(model=MODEL, messages=TALK).choices
    assert claude.with_options(api_key=key).messages.create(model=MODEL, messages=TALK, max_tokens=60).content


# --- a client that goes away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stream", "read"), leaving.WHEN.values(), ids=leaving.WHEN)
def test_a_client_that_goes_away_ends_the_generation(up: Served, *, stream: bool, read: bool) -> None:
    before = counted(up, "vllm:generation_tokens_total")
    leave(up, stream=stream, read=read)
    # It was given up and not done. How soon is measured by the command, on a machine with nothing else to do.
    assert counted(up, "vllm:generation_tokens_total") - before < ALL


# --- what its OpenAPI document allows, and what not -------------------------------------------------------------------


def test_nothing_that_is_made_of_the_schema_upsets_the_router(up: Served, document: Any) -> None:
    found = schema.run(up.router, document, examples=4, seed=1)
    assert found.faults == []
    assert sum(found.answers.values()) > 30
    assert {200, 400} <= {status for _, status in found.answers}
