rule infer:
    input:
        corpus="results/corpus/manifest.json",
        model="results/quantized/{model}/seed{seed}/{precision}/manifest.json",
        code=code_and_backend_of("infer.py"),
    output:
        manifest="results/infer/{model}/seed{seed}/{precision}/manifest.json",
        responses="results/infer/{model}/seed{seed}/{precision}/responses.jsonl",
        logprobs="results/infer/{model}/seed{seed}/{precision}/logprobs.parquet",
    log:
        "results/logs/infer/{model}/seed{seed}/{precision}.log",
    benchmark:
        "results/benchmarks/infer/{model}/seed{seed}/{precision}.tsv"
    wildcard_constraints:
        precision="|".join(QUANTIZERS),
    threads: 1
    resources:
        gpu=1,
        mem_mb=3000,
    params:
        quantizer=lookup(dpath="{precision}", within=config["quantizers"]),
        settings=config["inference"],
    message:
        "Asking {wildcards.model} (seed {wildcards.seed}) at {wildcards.precision}"
    script:
        "../scripts/infer.py"


use rule infer as infer_unquantized with:
    input:
        corpus="results/corpus/manifest.json",
        model="results/models/{model}/seed{seed}/manifest.json",
        code=code_of("infer.py", "palimpsest.quantizers.unquantized"),
    wildcard_constraints:
        precision="bf16",
    params:
        quantizer={"backend": "none"},
        settings=config["inference"],
