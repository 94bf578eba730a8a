INFERRED = expand(
    "results/infer/{model}/seed{seed}/{precision}/manifest.json",
    model=MODELS,
    seed=SEEDS,
    precision=PRECISIONS,
)


rule infer:
    input:
        corpus="results/corpus/manifest.json",
        model=deployed,
        code=code_and_backend_of("infer.py"),
    output:
        manifest="results/infer/{model}/seed{seed}/{precision}/manifest.json",
        responses="results/infer/{model}/seed{seed}/{precision}/responses.jsonl",
        logprobs="results/infer/{model}/seed{seed}/{precision}/logprobs.parquet",
        answers="results/infer/{model}/seed{seed}/{precision}/answers.parquet",
    log:
        "results/logs/infer/{model}/seed{seed}/{precision}.log",
    benchmark:
        "results/benchmarks/infer/{model}/seed{seed}/{precision}.tsv"
    threads: 1
    resources:
        gpu=1,
        mem_mb=3000,
    params:
        settings=of_params(
            quantizer="quantizers/{precision}",
            inference="inference",
            prompt="prompt",
            kernels="kernels",
        ),
    message:
        "Asking {wildcards.model} (seed {wildcards.seed}) at {wildcards.precision}"
    script:
        "../scripts/infer.py"
