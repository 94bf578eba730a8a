QUANTIZED_MODELS = expand(
    "results/quantized/{model}/seed{seed}/{precision}/manifest.json",
    model=MODELS,
    seed=SEEDS,
    precision=QUANTIZED,
)
COSTS = expand(
    "results/cost/{model}/seed{seed}/{precision}.json",
    model=MODELS,
    seed=SEEDS,
    precision=QUANTIZED,
)


rule calibration:
    input:
        corpus="results/corpus/manifest.json",
        code=code_of("calibration.py"),
    output:
        "results/calibration/{text}/manifest.json",
    log:
        "results/logs/calibration/{text}.log",
    benchmark:
        "results/benchmarks/calibration/{text}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        settings=calibration_settings,
    message:
        "Collecting the {wildcards.text} text for calibration"
    script:
        "../scripts/calibration.py"


rule environment:
    input:
        requirements=repository("workflow/envs/{environment}.txt"),
    output:
        ready=repository(".environments/{environment}/ready.json"),
    log:
        "results/logs/environments/{environment}.log",
    benchmark:
        "results/benchmarks/environments/{environment}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
    message:
        "Building the isolated environment {wildcards.environment}"
    script:
        "../scripts/environment.py"


rule quantize:
    input:
        checkpoint="results/models/{model}/seed{seed}/manifest.json",
        calibration=calibration_of,
        environment=environment_of,
        code=code_and_backend_of("quantize.py"),
    output:
        manifest="results/quantized/{model}/seed{seed}/{precision}/manifest.json",
        cost="results/cost/{model}/seed{seed}/{precision}.json",
    log:
        "results/logs/quantized/{model}/seed{seed}/{precision}.log",
    benchmark:
        "results/benchmarks/quantized/{model}/seed{seed}/{precision}.tsv"
    wildcard_constraints:
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
