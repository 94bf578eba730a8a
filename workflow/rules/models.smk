rule train:
    input:
        corpus="results/corpus/manifest.json",
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
        source=lookup(dpath="models/{model}", within=config),
        base=lookup(dpath="models/base", within=config),
        scratch=lookup(dpath="models/scratch", within=config),
        training=config["training"],
    message:
        "Training {wildcards.model} (seed {wildcards.seed})"
    script:
        "../scripts/train.py"
