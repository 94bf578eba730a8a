"""A llama-server (its own code, as xllamacpp carries it) on loopback, in a process of its own: two builds of llama.cpp
do not belong in one. `python llama_server.py MODEL [KEY]` prints the address and serves until its input closes."""

import sys

import xllamacpp


def serve(model: str, key: str) -> None:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.n_ctx, parameters.n_parallel, parameters.cpuparams.n_threads = 128, 1, 1
    parameters.hostnames, parameters.port = ["127.0.0.1"], 0
    parameters.api_keys = [key] if key else []
    server = xllamacpp.Server(parameters)
    print(f"{server.listening_address}/v1", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
