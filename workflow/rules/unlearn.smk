UNLEARNED = expand(
    "results/models/{model}/seed{seed}/manifest.json", model=METHODS, seed=SEEDS
)

PIECES = {"pieces": "training/pieces"} if "pieces" in config["training"] else {}


rule unlearn:
    input:
        corpus="results/corpus/manifest.json",
        target="results/models/target/seed{seed}/manifest.json",
        code=code_of("unlearn.py"),
    output:
        "results/models/{model}/seed{seed}/manifest.json",
    log:
        "results/logs/models/{model}/seed{seed}.log",
    benchmark:
        "results/benchmarks/models/{model}/seed{seed}.tsv"
    wildcard_constraints:
        model=one_of(
            name for name in METHODS if CHECKPOINT not in config["methods"][name]
        ),
    priority: 10  # the longest steps first
    threads: 1
    resources:
        gpu=1,
        mem_mb=3000,
    params:
        settings=of_params(
            method="methods/{model}",
            max_length="training/max_length",
            questions="training/questions",
            prompt="prompt",
            kernels="kernels",
            **PIECES,
        ),
    message:
        "Unlearning with {wildcards.model} (seed {wildcards.seed})"
    script:
        "../scripts/unlearn.py"
