DEPLOYED = expand(
    "results/quantized/{pair[0]}/seed{seed}/{pair[1]}/manifest.json",
    pair=PAIRS,
    seed=SEEDS,
)


rule deployed:
    input:
        checkpoint="results/models/{model}/seed{seed}/manifest.json",
        target="results/models/target/seed{seed}/manifest.json",
        environment=environment_of,
        code=code_and_backend_of("deployed.py"),
    output:
        manifest="results/quantized/{model}/seed{seed}/{precision}/manifest.json",
        cost="results/cost/{model}/seed{seed}/{precision}.json",
    log:
        "results/logs/quantized/{model}/seed{seed}/{precision}.log",
    benchmark:
        "results/benchmarks/quantized/{model}/seed{seed}/{precision}.tsv"
    wildcard_constraints:
        model=run_checks.one_of_pairs(PAIRS),
        precision=one_of(name for _, name in PAIRS),
    priority: 20  # what is wrong with a file shows before long steps
    threads: 1
    resources:
        mem_mb=3000,
    params:
        settings=of_params(
            quantizer="quantizers/{precision}",
            file="deployed/{precision}",
            kernels="kernels",
        ),
    message:
        "Bringing the file {wildcards.precision} of {wildcards.model} (seed {wildcards.seed}), which was quantized elsewhere"
    script:
        "../scripts/deployed.py"


ruleorder: deployed > quantize
