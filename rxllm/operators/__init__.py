"""Observable to Observable: what changes the stream. Each operator is exported by `rxllm`."""
