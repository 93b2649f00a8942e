"""Shows the faults that our patches of vLLM mend, on its own code with the real modelscope client and any hub.

  MODELSCOPE_ENDPOINT=http://127.0.0.1:8080 python3 faults.py NAME

prints {"name": NAME, "fault": null or what happened}; it exits 1 where it cannot look.

vLLM is the package that python finds, whole or with no more than the files in READ. Of these files only the functions
in question are run, as the rest needs torch. The hub has the model REPOSITORY, with FILES.
"""

import __future__

import ast
import functools
import importlib.util
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

REPOSITORY = "Tandem/adapter"
FILES = {"adapter_config.json": "{}", "config.json": "{}", "original/params.json": "{}"}
UTILS, LORA = "transformers_utils/utils.py", "lora/utils.py"
CONFIG, REPO_UTILS = "transformers_utils/config.py", "transformers_utils/repo_utils.py"
READ = (UTILS, LORA, CONFIG, REPO_UTILS)
SECRET = "hf_of-the-probe"  # noqa: S105 - nobody's


def make_repository(root: Path) -> None:
    """Write the model for a hub that serves ROOT/<org>/<name>."""
    for name, text in FILES.items():
        path = root / REPOSITORY / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def login() -> str | None:
    """Listing a model's files takes a function that newer modelscope clients lack."""
    _stand_in_for_the_types()
    _run(UTILS, {"modelscope_list_repo_files"})["modelscope_list_repo_files"](REPOSITORY)
    return None


def listing() -> str | None:
    """Listing a model's files takes a key that newer modelscope clients leave out."""
    _stand_in_for_the_login()
    found = _run(UTILS, {"modelscope_list_repo_files"})["modelscope_list_repo_files"](REPOSITORY)
    # Since modelscope leaves out the type, folders are listed too, in every version; nobody asks for such a file.
    return None if set(FILES) <= set(found) else f"it lists {found}"


def token() -> str | None:
    """Asking whether a model has a file sends the Hugging Face token to ModelScope."""
    import huggingface_hub

    _stand_in_for_the_login()
    _stand_in_for_the_types()
    os.environ["HF_TOKEN"] = SECRET
    os.environ.pop("MODELSCOPE_API_TOKEN", None)
    sent = _watch_what_is_sent()
    utils = ModuleType("vllm.transformers_utils.utils")
    vars(utils).update(_run(UTILS, {"modelscope_list_repo_files"}))
    sys.modules[utils.__name__] = utils
    wanted = {"HF_TOKEN", "_get_hf_token", "with_retry", "list_repo_files", "file_exists", "file_or_path_exists"}
    # Later versions have these functions in a file of their own.
    file = CONFIG if "def list_repo_files" in _path(CONFIG).read_text(encoding="utf-8") else REPO_UTILS
    known = _run(file, wanted, huggingface_hub=huggingface_hub, cache=functools.cache,
                 try_to_load_from_cache=huggingface_hub.try_to_load_from_cache,
                 # It would wait before it tries again.
                 time=SimpleNamespace(sleep=lambda _: None))  # fmt: skip
    try:
        known["file_or_path_exists"](REPOSITORY, "config.json", None)
    except Exception:
        # A hub need not take a token that is not its own.
        if not sent:
            raise
    return f"HF_TOKEN is sent to {sent[0]}" if sent else None


def lora() -> str | None:
    """Fetching a LoRA adapter by its ModelScope id imports a name from where it no longer is."""
    import huggingface_hub
    from huggingface_hub import errors

    source = _path(LORA).read_text(encoding="utf-8")
    if "modelscope" not in source.lower():
        # Up to 0.14 vLLM fetches adapters from Hugging Face alone.
        return None
    known = _run(LORA, {"get_adapter_absolute_path"}, huggingface_hub=huggingface_hub,
                 HfHubHTTPError=errors.HfHubHTTPError, HFValidationError=errors.HFValidationError)  # fmt: skip
    folder = Path(known["get_adapter_absolute_path"](REPOSITORY))
    return None if (folder / "adapter_config.json").is_file() else f"it gives {folder}, where no adapter is"


FAULTS: dict[str, Callable[[], str | None]] = {"login": login, "listing": listing, "token": token, "lora": lora}


def _path(name: str) -> Path:
    """Find a file of vLLM without importing it."""
    found = importlib.util.find_spec("vllm")
    if found is None or found.origin is None:
        raise SystemExit("error: python finds no vllm here")
    return Path(found.origin).parent / name


def _run(name: str, wanted: set[str], **known: Any) -> dict[str, Any]:
    """Run these top-level functions and constants of a file, with ModelScope in use; give all names."""
    tree = ast.parse(_path(name).read_text(encoding="utf-8"))
    tree.body = [node for node in tree.body if _names(node) & wanted]
    names = {"os": os, "Path": Path, "logger": logging.getLogger("vllm"), "VLLM_USE_MODELSCOPE": True,
             "envs": SimpleNamespace(VLLM_USE_MODELSCOPE=True), **known}  # fmt: skip
    # Annotations name types that are not here.
    flags = __future__.annotations.compiler_flag
    exec(compile(tree, name, "exec", flags=flags, dont_inherit=True), names)  # noqa: S102 - the very code in question
    return names


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {target.id for target in node.targets if isinstance(target, ast.Name)}
    return set()


def _stand_in_for_the_login() -> None:
    """Give the client what older ones have, so that the code behind the fault `login` is reached."""
    from modelscope.hub.api import HubApi
    from modelscope.utils import hf_util

    def log_in(given: str | None) -> None:
        if given:
            HubApi().login(given)

    # The module answers for some names with others; only its own count.
    vars(hf_util).setdefault("_try_login", log_in)


def _stand_in_for_the_types() -> None:
    """Give the client's lists of files what older ones have, so that the fault `listing` hides no other."""
    from modelscope.hub.api import HubApi

    listed = HubApi.get_model_files

    def with_types(self: HubApi, *given: Any, **options: Any) -> Any:
        return [{"Type": "blob", **file} for file in listed(self, *given, **options)]

    HubApi.get_model_files = with_types  # type: ignore[method-assign]


def _watch_what_is_sent() -> list[str]:
    """List the addresses that get the token from now on, in whatever part of a request."""
    import requests

    sent: list[str] = []
    send = requests.Session.send

    def watched(self: Any, request: Any, **options: Any) -> Any:
        body = request.body.decode() if isinstance(request.body, bytes) else str(request.body)
        if SECRET in f"{request.url} {request.headers} {body}":
            sent.append(request.url)
        return send(self, request, **options)

    requests.Session.send = watched  # type: ignore[method-assign]
    return sent


def main(argv: list[str]) -> int:
    """Look for one fault; exit 1 where that is not possible."""
    if len(argv) != 1 or argv[0] not in FAULTS:
        print(f"error: name one of: {', '.join(FAULTS)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as home:
        # What the client keeps: a cache, and what a login gave it.
        os.environ |= {"HOME": home, "MODELSCOPE_CACHE": f"{home}/cache"}
        from modelscope.hub.api import HubApi

        # What fails here is no fault of vLLM.
        HubApi().get_model_files(REPOSITORY, recursive=True)
        try:
            fault = FAULTS[argv[0]]()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the fault
            fault = f"{type(error).__name__}: {error}"
    print(json.dumps({"name": argv[0], "fault": fault}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
