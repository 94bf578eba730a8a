TRAINED = expand(
    "results/models/{model}/seed{seed}/manifest.json",
    model=[TARGET, *CONTROLS],
    seed=SEEDS,
)


rule train:
    input:
        corpus="results/corpus/manifest.json",
        base=BASE,
        code=code_of("train.py"),
    output:
        "results/models/{model}/seed{seed}/manifest.json",
    log:
        "results/logs/models/{model}/seed{seed}.log",
    benchmark:
        "results/benchmarks/models/{model}/seed{seed}.tsv"
    wildcard_constraints:
        model="target|retrain",
    threads: 1
    resources:
        gpu=1,
        mem_mb=3000,
    params:
        settings=of_params(
            source="models/{model}",
            base="models/base",
            scratch="models/scratch",
            training="training",
            prompt="prompt",
            kernels="kernels",
        ),
        refused=run_checks.uncounted(run_checks.refusals_of(config["quantizers"])),  # a format more trains nothing anew
    message:
        "Training {wildcards.model} (seed {wildcards.seed})"
    script:
        "../scripts/train.py"
