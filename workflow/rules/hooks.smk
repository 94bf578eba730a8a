# One process imports what the steps of a run import, and they are forks of it (palimpsest.runtime.warm): not for a run of a step or two,
# whose own imports are over before it is ready, and not where another machine does the steps, or nobody does them (--touch). A run that
# is started inside another one, or by tests, uses the warm process that is there.
WARM = []
# What a step made before comes back where the step fails, and where its run was killed (palimpsest.runtime.kept).
KEPT = []
LASTING = []
# of Snakemakes that were tried
RECORDS = getattr(snakemake.persistence, "file", None)
if workflow.is_main_process and RECORDS:
    put_back_after_a_kill(RECORDS.FilePersistence, logger)
# What says that this run lives: its steps on this machine end with it (palimpsest.runtime.run_end).
HELD = []


onstart:
    if workflow.is_main_process and not workflow.touch:
        KEPT.extend(keep(workflow.dag.needrun_jobs(), workflow.persistence))
        in_files = RECORDS and isinstance(
            workflow.persistence, RECORDS.FilePersistence
        )
        if workflow.local_exec and in_files:
            LASTING.append(outlast(KEPT, workflow.persistence._lockfile.values()))
    heavy = [
        job for job in workflow.dag.needrun_jobs() if "gpu" in job.rule.resources
    ]
    runs_here = workflow.local_exec and not workflow.touch
    # Of the steps that begin in a second Snakemake allows 100, more than a machine reaches. For that it looks at all ready
    # steps once a second more for each step that ended: a twentieth of the default study's CPU time.
    limit = getattr(workflow.scheduler, "job_rate_limiter", None)
    if runs_here and limit and limit.max_jobs >= 100 * limit.timespan:
        workflow.scheduler.job_rate_limiter = None
    if runs_here and workflow.is_main_process:
        HELD.append(hold_run())
    if runs_here:
        imports = [
            name
            for precision in PRECISIONS
            for name in quantizer_named(precision).imports
        ]
        WARM.extend(
            start_for_run(
                list(dict.fromkeys([*LIBRARIES, *imports])),
                Path("results/logs/warm.log"),
                worth=len(heavy) > 2,
            )
        )


onsuccess:
    for warm in WARM:
        stop(*warm)
    for held in HELD:
        release_run(held)
    drop()


onerror:
    for warm in WARM:
        stop(*warm)
    for held in HELD:
        release_run(held)
    repeat_errors(file for job in workflow.dag.needrun_jobs() for file in job.log)
    put_back(KEPT, workflow.persistence, logger)
    run_checks.leave(
        [job.rule.name for job in workflow.dag.needrun_jobs()],
        [Path(manifest).parent for manifest in VERDICTS],
    )
