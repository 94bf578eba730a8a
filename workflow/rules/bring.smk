rule bring:
    input:
        target="results/models/target/seed{seed}/manifest.json",
        code=code_of("bring.py"),
    output:
        "results/models/{model}/seed{seed}/manifest.json",
    log:
        "results/logs/models/{model}/seed{seed}.log",
    benchmark:
        "results/benchmarks/models/{model}/seed{seed}.tsv"
    wildcard_constraints:
        model=one_of(
            [name for name in METHODS if CHECKPOINT in config["methods"][name]]
        ),
    priority: 20  # what is wrong with a checkpoint shows before long steps
    threads: 1
    resources:
        mem_mb=3000,
    params:
        settings=of_params(
            method="methods/{model}",
            source="models/target",
            prompt="prompt",
            kernels="kernels",
        ),
        refused=run_checks.uncounted(run_checks.refusals_of(config["quantizers"])),
    message:
        "Bringing {wildcards.model} (seed {wildcards.seed}), which was unlearned elsewhere"
    script:
        "../scripts/bring.py"
