VERDICT = config.get("verdict") or {}
if workflow.is_main_process:
    with one_line():
        run_checks.check_verdict(config, Path("results"))
POLICY = ["results/policy/policy.json"] if VERDICT else []


rule policy:
    input:
        code=code_of("policy.py"),
    output:
        update("results/policy/policy.json"),  # what it says of the scores outlives a rerun
    log:
        "results/logs/policy.log",
    benchmark:
        "results/benchmarks/policy.tsv"
    priority: 100  # before there is anything to judge
    threads: 1
    resources:
        mem_mb=500,
    params:
        settings=of_params(policy="verdict/policy") if VERDICT else {},
    message:
        "Fixing the policy of the verdict"
    script:
        "../scripts/policy.py"
