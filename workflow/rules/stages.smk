# What the stages of dvc.yaml ask for, beside `corpus` and `all`.
rule models:
    input:
        TRAINED,
        UNLEARNED,


rule deploy:
    input:
        QUANTIZED_MODELS,
        INFERRED,
        SURVIVAL,
        BATTERY_RECORDS,
