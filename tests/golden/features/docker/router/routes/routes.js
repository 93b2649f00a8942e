// Rendered from models.toml by `python -m orchestrator render`. Changes made here are lost.
export default {
  "services": {
    "千问": "qwen-14b",
    "Qwen/Qwen2.5-14B-Instruct": "qwen-14b",
    "gpt-4": "qwen-14b",
    "mine": "mine",
    "by-id": "by-id",
    "demo": "demo"
  },
  "models": [
    {
      "id": "千问",
      "object": "model",
      "created": 0,
      "owned_by": "tandem",
      "root": "Qwen/Qwen2.5-14B-Instruct",
      "max_model_len": 16384,
      "aliases": [
        "Qwen/Qwen2.5-14B-Instruct",
        "gpt-4"
      ]
    },
    {
      "id": "mine",
      "object": "model",
      "created": 0,
      "owned_by": "tandem",
      "root": "./my models/mine",
      "max_model_len": null,
      "aliases": []
    },
    {
      "id": "by-id",
      "object": "model",
      "created": 0,
      "owned_by": "tandem",
      "root": "deepseek-ai/DeepSeek-R1-Distill-Qwen-14B",
      "max_model_len": 32768,
      "aliases": []
    },
    {
      "id": "demo",
      "object": "model",
      "created": 0,
      "owned_by": "tandem",
      "root": "Tandem/demo",
      "max_model_len": null,
      "aliases": []
    }
  ],
  "digest": "6f1da8ab3f875133"
};
