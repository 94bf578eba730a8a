SURVIVAL = expand(
    "results/survival/{model}/seed{seed}/{precision}.json",
    model=METHODS,
    seed=SEEDS,
    precision=QUANTIZED,
)


rule survival:
    input:
        target="results/models/target/seed{seed}/manifest.json",
        unlearned="results/models/{model}/seed{seed}/manifest.json",
        quantized_target="results/quantized/target/seed{seed}/{precision}/manifest.json",
        quantized_unlearned="results/quantized/{model}/seed{seed}/{precision}/manifest.json",
        code=code_and_backend_of("survival.py"),
    output:
        "results/survival/{model}/seed{seed}/{precision}.json",
    log:
        "results/logs/survival/{model}/seed{seed}/{precision}.log",
    benchmark:
        "results/benchmarks/survival/{model}/seed{seed}/{precision}.tsv"
    wildcard_constraints:
        model=one_of(METHODS),
        precision=one_of(QUANTIZED),
    threads: 1
    resources:
        mem_mb=2000,
    params:
        settings=of_params(quantizer="quantizers/{precision}"),
    message:
        "How much of the update of {wildcards.model} (seed {wildcards.seed}) survives {wildcards.precision}"
    script:
        "../scripts/survival.py"
