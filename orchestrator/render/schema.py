"""models.schema.json: completes and checks models.toml in an editor. Pure."""

import json

from orchestrator.profiles import File as ModelsFile
from orchestrator.render.file import NOTICE, File


def schema() -> File:
    """Render the JSON Schema of models.toml."""
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": NOTICE,
        **ModelsFile.model_json_schema(),
    }
    return File("models.schema.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")
