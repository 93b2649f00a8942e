"""What the servers' entrypoint does around `vllm serve`: waits for a turn and memory, and leaves nothing behind."""
