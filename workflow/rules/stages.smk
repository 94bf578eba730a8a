# What the stages of dvc.yaml ask for, beside `corpus` and `all`.
rule first:
    input:
        POLICY,
        "results/corpus/manifest.json",


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
        ATTACKS.table,


localrules:
    all,
    first,
    models,
    deploy,
