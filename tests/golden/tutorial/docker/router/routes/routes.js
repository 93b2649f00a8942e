// Rendered from models.toml by `python -m orchestrator render`. Changes made here are lost.
export default {
  "services": {
    "qwen-14b": "qwen-14b",
    "deepseek-14b": "deepseek-14b",
    "qwen-32b-awq": "qwen-32b-awq",
    "qwq-32b-awq": "qwq-32b-awq"
  },
  "models": [
    {
      "id": "qwen-14b",
      "object": "model",
      "created": 0,
      "owned_by": "tandem",
      "root": "Qwen/Qwen2.5-14B-Instruct",
      "max_model_len": 16384,
      "aliases": []
    },
    {
      "id": "deepseek-14b",
      "object": "model",
      "created": 0,
      "owned_by": "tandem",
      "root": "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
      "max_model_len": 32768,
      "aliases": []
    },
    {
      "id": "qwen-32b-awq",
      "object": "model",
      "created": 0,
      "owned_by": "tandem",
      "root": "Qwen/Qwen2.5-32B-Instruct-AWQ",
      "max_model_len": 16384,
      "aliases": []
    },
    {
      "id": "qwq-32b-awq",
      "object": "model",
      "created": 0,
      "owned_by": "tandem",
      "root": "Qwen/QwQ-32B-AWQ",
      "max_model_len": 16384,
      "aliases": []
    }
  ],
  "digest": "7f911a716514a5ac"
};
