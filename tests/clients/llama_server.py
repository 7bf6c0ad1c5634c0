"""Runs llama.cpp's HTTP server on a model: ``python llama_server.py MODEL``.

It prints the server's address, and runs until its standard input is closed, as it is when the parent process ends.
"""

import sys

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.model_alias = ["tiny"]
params.n_ctx = 65_536  # for both slots together: an endless answer runs for many seconds
params.n_parallel = 2
params.use_jinja = True
params.endpoint_slots = True
params.warmup = False
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
if len(sys.argv) > 2:
    params.api_keys = sys.argv[2:]
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
