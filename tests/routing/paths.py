"""What was decided about every path that vLLM can have: it passes, the router answers it, or it is refused."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

# How a path comes to a server: by the model that its JSON, its form or its address names, or to the one that is ready.
Passing = Literal["body", "form", "query", "ready"]
Way = Passing | Literal["router", "refused"]
# Which servers have it. "text": each that serves a text model, in development mode at least. "written": those of other
# models or with other flags, so that only vLLM's source has it here. "older": no more in the newest version.
# "framework": FastAPI's own, which no source names. "nobody": the router alone.
Of = Literal["text", "written", "older", "framework", "nobody"]
PASSES = ("body", "form", "query", "ready")
Paths = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Decision:
    """What becomes of a path; one that is refused is so by every method, others take these and no more."""

    path: str
    way: Way
    why: str
    methods: tuple[str, ...] = ("POST",)
    of: Of = "text"

    @property
    def passes(self) -> bool:
        return self.way in PASSES

    def example(self) -> str:
        """Give an address of it."""
        return self.path.replace("{response_id}", "resp_0").replace("{name}", "demo")


def _decided(paths: str, way: Way, why: str, methods: tuple[str, ...], of: Of) -> list[Decision]:
    return [Decision(path, way, why, methods, of) for path in paths.split()]


def _passes(way: Passing, paths: str, why: str, method: str = "POST", of: Of = "text") -> list[Decision]:
    return _decided(paths, way, why, (method,), of)


def _router(paths: str, why: str, of: Of = "nobody") -> list[Decision]:
    return _decided(paths, "router", why, ("GET",), of)


def _refused(paths: str, why: str, of: Of = "text") -> list[Decision]:
    return _decided(paths, "refused", why, (), of)


DECIDED: tuple[Decision, ...] = (
    *_passes("body", "/v1/chat/completions /v1/completions /v1/responses", "OpenAI's API"),
    *_passes("body", "/v1/messages /v1/messages/count_tokens", "Anthropic's API"),
    *_passes("body", "/tokenize /detokenize", "how a model counts, which clients ask for"),
    *_passes("body", "/v1/embeddings", "OpenAI's API, of models that embed", of="written"),
    *_passes("body", "/pooling /classify", "of models that pool", of="written"),
    *_passes("body", "/score /v1/score", "of models that score", of="written"),
    *_passes("body", "/rerank /v1/rerank /v2/rerank", "Jina's and Cohere's API, of models that score", of="written"),
    *_passes(
        "form", "/v1/audio/transcriptions /v1/audio/translations", "OpenAI's API, of models that hear", of="written"
    ),
    *_passes("query", "/v1/realtime", "a WebSocket of models that hear", "GET", of="written"),
    *_passes("ready", "/v1/responses/{response_id}", "an answer that the server keeps: its id names no model", "GET"),
    *_passes("ready", "/v1/responses/{response_id}/cancel", "the same"),
    *_passes("ready", "/version", "some clients ask for it first", "GET"),
    *_router("/v1/models", "all that can be asked for, and not only who runs", "text"),
    *_router("/v1/models/{name}", "OpenAI's API; vLLM has none"),
    *_router("/health", "whether the router lives", "text"),
    *_router("/ready", "whether a model is ready"),
    *_refused("/metrics /load", "its owner's: /-/metrics/NAME"),
    *_refused("/v1/chat/completions/batch", "many conversations in one body, which OpenAI's API has not"),
    *_refused("/v1/systemone /generative_scoring", "of vLLM alone: no client asks for them"),
    *_refused("/v2/embed /cohere/v2/chat /cohere/v2/chat/render", "Cohere's API, but for rerank", of="written"),
    *_refused("/invocations /ping", "SageMaker's: its headers choose another model than the body"),
    *_refused("/sleep /wake_up /is_sleeping /release_kv_cache_memory", "the activator's alone"),
    *_refused("/pause /resume /is_paused /abort_requests", "stops what others asked for"),
    *_refused("/collective_rpc", "runs in the workers what it is given"),
    *_refused("/server_info /kv_event_sources", "tells how the server was started"),
    *_refused("/reset_prefix_cache /reset_mm_cache /reset_encoder_cache", "takes from everybody what was computed"),
    *_refused("/init_weight_transfer_engine /shutdown_weight_transfer_engine /get_world_size", "changes the weights"),
    *_refused("/start_weight_update /start_draft_weight_update /update_weights /finish_weight_update", "the same"),
    *_refused("/update_weight_version /weight_info /weight_checker", "the same"),
    *_refused("/scale_elastic_ep /is_scaling_elastic_ep", "changes how many GPUs it has"),
    *_refused("/v1/load_lora_adapter /v1/unload_lora_adapter", "any folder: TANDEM_LORA_LOADING", of="written"),
    *_refused("/start_profile /stop_profile", "writes until the disk is full", of="written"),
    *_refused("/tokenizer_info", "tells all of the tokenizer", of="written"),
    *_refused("/fault_tolerance/apply /fault_tolerance/status", "between the parts of a cluster", of="written"),
    *_refused("/inference/v1/generate /inference/v1/abort_requests", "the same", of="written"),
    *_refused("/v1/chat/completions/render /v1/chat/completions/derender", "the same", of="written"),
    *_refused("/v1/completions/render /v1/completions/derender", "the same", of="written"),
    *_refused("/v1/responses/render /v1/messages/render", "the same", of="written"),
    *_refused("/readyz", "a supervisor's, in front of servers of its own", of="written"),
    *_refused("/docs /static", "names every path that there is", of="written"),
    *_refused("/generate", "of an example of a server, which nobody runs", of="older"),
    *_refused("/openapi.json /redoc /docs/oauth2-redirect", "the same", of="framework"),
)
BY_PATH: Mapping[str, Decision] = {decision.path: decision for decision in DECIDED}


def of_document(document: Mapping[str, Mapping[str, Mapping[str, object]]]) -> Paths:
    """Give the paths of an OpenAPI document, and the methods of each."""
    return {path: frozenset(method.upper() for method in item) for path, item in document["paths"].items()}


def undecided(found: Paths, decided: Mapping[str, Decision] = BY_PATH) -> list[str]:
    """Name what a server has and nobody decided about."""
    missing = []
    for path, methods in found.items():
        decision = decided.get(path)
        if decision is None:
            missing += [f"{method} {path}" for method in methods]
        elif decision.passes:
            missing += [f"{method} {path}" for method in methods.difference(decision.methods)]
    return sorted(missing)


def missing(text: Paths, written: Paths, decided: Iterable[Decision] = DECIDED) -> list[str]:
    """Name what was decided about and no server has, or servers of another kind than the decision says."""
    where: Mapping[str, Paths] = {"text": text, "written": written}
    lost = []
    for decision in decided:
        known = where.get(decision.of)
        if known is not None and (decision.path not in known or not known[decision.path] >= set(decision.methods)):
            lost.append(f"{' '.join([*decision.methods, decision.path])}: no server has it ({decision.of})")
        if decision.of != "text" and decision.path in text:
            lost.append(f"{decision.path}: a server of a text model has it (not only {decision.of})")
    return lost
