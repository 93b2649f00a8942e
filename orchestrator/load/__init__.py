"""How fast a model that is up answers: runs of `vllm bench serve`, their results, and two of them compared."""
