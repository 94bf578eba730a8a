# What the stages of dvc.yaml ask for, beside `corpus` and `all`.
rule models:
    input:
        expand(
            "results/models/{model}/seed{seed}/manifest.json", model=MODELS, seed=SEEDS
        ),


rule deploy:
    input:
        expand(
            "results/quantized/{model}/seed{seed}/{precision}/manifest.json",
            model=MODELS,
            seed=SEEDS,
            precision=QUANTIZERS,
        ),
        expand(
            "results/infer/{model}/seed{seed}/{precision}/manifest.json",
            model=MODELS,
            seed=SEEDS,
            precision=PRECISIONS,
        ),
        expand(
            "results/weights/{model}/seed{seed}/{precision}.json",
            model=METHODS,
            seed=SEEDS,
            precision=QUANTIZERS,
        ),
        BATTERY_RECORDS,
