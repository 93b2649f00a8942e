"""The shape of models.toml, and the model profile that comes of each entry. Pure."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from orchestrator.adapters import Adapter, adapters

# What a flag may be given; rules.py looks at the values, as pydantic's errors about unions are hard to read.
_ARGS_SCHEMA = {
    "type": "object",
    "additionalProperties": {
        "anyOf": [
            {"type": ["boolean", "integer", "number", "string", "object"]},
            {"type": "array", "items": {"type": ["integer", "number", "string"]}},
        ]
    },
}
Dtype = Literal["auto", "half", "float16", "bfloat16", "float", "float32"]
Image = Literal["cuda", "cpu"]
Sleep = Literal["off", "auto"]
Source = Literal["modelscope", "huggingface", "path"]
# What a hub calls the branch that a model is on.
BRANCHES: dict[str, str] = {"modelscope": "master", "huggingface": "main", "path": ""}


class Options(BaseModel):
    """What [defaults] may say and every model profile may say otherwise."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    source: Source = Field(
        "modelscope",
        description="Where the weights are from: modelscope, huggingface, or path, a folder of this machine.",
    )
    revision: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Branch, tag or commit of the model on its hub; its main branch unless given."
    )
    gpus: list[Annotated[int, Field(ge=0)]] = Field([], description="Ids of the GPUs that the server reserves.")
    tensor_parallel_size: Annotated[int, Field(ge=1)] = Field(1, description="GPUs that each layer is split over.")
    max_model_len: Annotated[int, Field(ge=1)] | None = Field(None, description="Context length, in tokens.")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="Share of each GPU's memory that the server may take."
    )
    dtype: Dtype | None = Field(None, description="Type of weights and activations.")
    quantization: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Quantization kernel. Leave it out: vLLM picks the fastest for the model's own format."
    )
    enforce_eager: bool = Field(False, description="No CUDA graphs: starts sooner, answers several times slower.")
    reasoning_parser: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Splits the reasoning of a model from its answer, such as deepseek_r1."
    )
    tool_call_parser: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Reads a model's tool calls, such as hermes; turns automatic tool choice on."
    )
    image: Image = Field("cuda", description="Image variant: cuda for NVIDIA GPUs, cpu for a machine with none.")
    vllm: str | None = Field(
        None, description="Version of vLLM, of docker/vllm/versions.toml; by default the newest that the driver runs."
    )
    ready_timeout: Annotated[int, Field(ge=1)] = Field(900, description="Seconds a start may take until ready.")
    sleep: Sleep = Field(
        "off",
        description="auto: a model that gives way is put to sleep where memory allows, and is back within seconds.",
    )
    ttl: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Seconds without a request after which the model leaves its GPUs; never unless given."
    )
    preload: bool = Field(False, description="Bring the model up when Tandem starts and nobody wants another.")
    shm_size: Annotated[str, Field(pattern=r"^[1-9][0-9]*[kmg]b?$")] = Field(
        "8gb", description="Shared memory of the container, such as 8gb; NCCL and vLLM's workers talk through it."
    )
    pull: bool = Field(
        True, description="Pull the weights before the start; false: the server fetches them by id from its hub."
    )
    args: Annotated[dict[str, Any], WithJsonSchema(_ARGS_SCHEMA)] = Field(
        {}, description="Any other flag of `vllm serve`, without its dashes."
    )
    env: dict[str, str] = Field({}, description="Environment variables of the server.")


class Entry(Options):
    """One [models.NAME] table, as written."""

    model: Annotated[str, Field(min_length=1)] = Field(
        description="org/name on the hub, or a folder that begins with ./ or / and holds the model."
    )
    served_model_name: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="What clients send as the model; the profile's name unless given."
    )
    aliases: list[Annotated[str, Field(min_length=1)]] = Field([], description="Other names that clients may send.")


class File(BaseModel):
    """models.toml whole: [defaults] and one [models.NAME] table per model profile."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    defaults: Options = Field(Options(), description="What every model profile says unless it says otherwise.")
    models: dict[str, Entry] = Field(description="The model profiles, by name.", min_length=1)


class Profile(Entry):
    """A model profile with its defaults filled in; one that exists is valid."""

    name: str
    served_model_name: str

    @property
    def local(self) -> bool:
        """Whether `model` is a folder of this machine and not an id on a hub."""
        return self.model.startswith(("./", "/"))

    @property
    def pulled(self) -> bool:
        """Whether the weights are pulled into the shared volume before the server starts."""
        return self.pull and not self.local

    @property
    def branch(self) -> str:
        """The revision that is meant, whether it is given or not."""
        return self.revision or BRANCHES[self.source]

    @property
    def names(self) -> list[str]:
        """Every name of the model that clients may send, the served model name first."""
        return [self.served_model_name, *self.aliases]

    @property
    def adapters(self) -> list[Adapter]:
        """The LoRA adapters that the server is started with, each under a name of its own."""
        return adapters(self.args)

    @property
    def reached_by(self) -> list[str]:
        """Every name that leads clients to the server: the model's own, and those of its adapters."""
        return [*self.names, *(adapter.name for adapter in self.adapters)]

    @property
    def variable(self) -> str:
        """What this profile's Compose variables begin with: QWEN_14B for qwen-14b."""
        return self.name.upper().replace("-", "_")


def gpu_names(ids: Iterable[int]) -> str:
    """Name GPUs in a sentence: GPU 0, or GPUs 0, 1."""
    listed = list(ids)
    return ("GPU " if len(listed) == 1 else "GPUs ") + ", ".join(map(str, listed))
