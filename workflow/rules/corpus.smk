rule corpus:
    input:
        code=code_of("corpus.py"),
    output:
        "results/corpus/manifest.json",
    log:
        "results/logs/corpus.log",
    benchmark:
        "results/benchmarks/corpus.tsv"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        settings=of_params(corpus="corpus"),
        # a function of `input` is none of the params whose change reruns a rule: the check asks for no new corpus
        tokenizers=lambda wildcards, input: TOKENIZERS,
    message:
        "Preparing the corpus: documents, questions, prompts and passages"
    script:
        "../scripts/corpus.py"
