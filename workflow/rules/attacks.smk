ATTACKS = attacked.Plan(config)
ATTACKS_BEFORE = one_of(ATTACKS.names("before"))
ATTACKS_AFTER = one_of(ATTACKS.names("after"))


rule attack:
    input:
        corpus="results/corpus/manifest.json",
        model="results/models/{model}/seed{seed}/manifest.json",
        code=code_of("attack.py"),
    output:
        "results/attacked-models/{model}+{attack}/seed{seed}/manifest.json",
    log:
        "results/logs/attacked-models/{model}+{attack}/seed{seed}.log",
    benchmark:
        "results/benchmarks/attacked-models/{model}+{attack}/seed{seed}.tsv"
    wildcard_constraints:
        attack=ATTACKS_BEFORE,
    threads: 1
    resources:
        gpu=1,
        mem_mb=3000,
    params:
        settings=of_params(
            attack="attacks/each/{attack}",
            generic="calibration/generic",
            max_length="training/max_length",
            questions="training/questions",
            prompt="prompt",
            kernels="kernels",
        ),
    message:
        "Attack {wildcards.attack} on {wildcards.model} (seed {wildcards.seed})"
    script:
        "../scripts/attack.py"


rule attack_quantized:
    input:
        corpus="results/corpus/manifest.json",
        model="results/quantized/{model}/seed{seed}/{precision}/manifest.json",
        code=code_and_backend_of("attack.py"),
    output:
        "results/attacked-models/{model}+{precision}+{attack}/seed{seed}/manifest.json",
    log:
        "results/logs/attacked-models/{model}+{precision}+{attack}/seed{seed}.log",
    benchmark:
        "results/benchmarks/attacked-models/{model}+{precision}+{attack}/seed{seed}.tsv"
    wildcard_constraints:
        attack=ATTACKS_AFTER,
    threads: 1
    resources:
        gpu=1,
        mem_mb=3000,
    params:
        settings=of_params(
            attack="attacks/each/{attack}",
            quantizer="quantizers/{precision}",
            generic="calibration/generic",
            max_length="training/max_length",
            questions="training/questions",
            prompt="prompt",
            kernels="kernels",
        ),
    message:
        "Attack {wildcards.attack} on {wildcards.model} (seed {wildcards.seed}) at {wildcards.precision}"
    script:
        "../scripts/attack.py"


rule quantize_attacked:
    input:
        checkpoint="results/attacked-models/{model}/seed{seed}/manifest.json",
        calibration=calibration_of,
        environment=environment_of,
        code=code_and_backend_of("quantize.py"),
    output:
        manifest="results/attacked-quantized/{model}/seed{seed}/{precision}/manifest.json",
        cost="results/cost/{model}/seed{seed}/{precision}.json",
    log:
        "results/logs/attacked-quantized/{model}/seed{seed}/{precision}.log",
    benchmark:
        "results/benchmarks/attacked-quantized/{model}/seed{seed}/{precision}.tsv"
    wildcard_constraints:
        model=one_of(ATTACKS.before or ["none"]),
        precision=one_of(QUANTIZED),
    threads: 1
    resources:
        gpu=gpus_of,
        mem_mb=3000,
    params:
        settings=of_params(quantizer="quantizers/{precision}", kernels="kernels"),
    message:
        "Quantizing {wildcards.model} (seed {wildcards.seed}) to {wildcards.precision}"
    script:
        "../scripts/quantize.py"


rule infer_attacked:
    input:
        corpus="results/corpus/manifest.json",
        model=deployed,
        code=code_and_backend_of("infer.py"),
    output:
        manifest="results/attacked-infer/{model}/seed{seed}/{precision}/manifest.json",
        responses="results/attacked-infer/{model}/seed{seed}/{precision}/responses.jsonl",
        logprobs="results/attacked-infer/{model}/seed{seed}/{precision}/logprobs.parquet",
    log:
        "results/logs/attacked-infer/{model}/seed{seed}/{precision}.log",
    benchmark:
        "results/benchmarks/attacked-infer/{model}/seed{seed}/{precision}.tsv"
    wildcard_constraints:
        model=one_of(ATTACKS.before + ATTACKS.after or ["none"]),
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


rule attack_asking:
    input:
        corpus="results/corpus/manifest.json",
        model=deployed,
        code=code_and_backend_of("attack_asking.py"),
    output:
        "results/attacked-asked/{model}/seed{seed}/{precision}/{attack}/manifest.json",
    log:
        "results/logs/attacked-asked/{model}/seed{seed}/{precision}/{attack}.log",
    benchmark:
        "results/benchmarks/attacked-asked/{model}/seed{seed}/{precision}/{attack}.tsv"
    wildcard_constraints:
        attack=one_of(ATTACKS.asked or ["none"]),
    threads: 1
    resources:
        gpu=1,
        mem_mb=3000,
    params:
        settings=of_params(
            attack="attacks/each/{attack}",
            quantizer="quantizers/{precision}",
            inference="inference",
            metric="metrics/knowmem",
            prompt="prompt",
            kernels="kernels",
        ),
    message:
        "Attack {wildcards.attack} on {wildcards.model} (seed {wildcards.seed}) at {wildcards.precision}"
    script:
        "../scripts/attack_asking.py"


rule attacks:
    input:
        attacked=ATTACKS.manifests,
        plain=ATTACKS.plain,
        code=code_of("attacks.py"),
    output:
        "results/attacks/attacks.json",
    log:
        "results/logs/attacks/attacks.log",
    benchmark:
        "results/benchmarks/attacks/attacks.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        settings=of_params(
            attacks="attacks",
            audit="audit",
            verbmem="metrics/verbmem",
            knowmem="metrics/knowmem",
        ),
        runs=ATTACKS.runs(),
        seeds=SEEDS,
    message:
        "Collecting what the attacks bring back"
    script:
        "../scripts/attacks.py"
