"""What is looked at before the first job, and written down after a failure."""

from unveil.workflow.job import hold_results
from unveil.workflow.overview import write_overview
from unveil.workflow.slurm import check_slurm


onstart:
    try:
        if SHARED:
            hold_results(config["results"])
        if workflow.executor_plugin and workflow.executor_plugin.name == "slurm":
            check_slurm(rule.resources for rule in workflow.rules)
    except InputError as error:
        raise WorkflowError(str(error)) from None
    if SHARED and SharedFSUsage.INPUT_OUTPUT not in (
        workflow.storage_settings.shared_fs_usage
    ):
        raise WorkflowError(
            "The executor shares no file system with its jobs, but the workflow was not told "
            "in time. Remedy: give --shared-fs-usage none, or a profile that does."
        )
    if not SHARED and HERE.resolve() != Path.cwd().resolve():
        raise WorkflowError(
            "The jobs share no file system, so the workflow is sent to them from the working "
            f"directory, but it lies in {HERE}. Remedy: start it in its own folder."
        )


onerror:
    # As the rule list_scenes, of what is there; a store has the records of finished jobs.
    if not STORED:
        write_overview(
            Path(config["results"]) / "scenes.csv",
            DIVISION.shards,
            home=Path(HOME),
            records=Path(config["results"]).glob("inference/*/*.json"),
            skipped=Path(config["results"]).glob("metrics/*/*.skipped.csv"),
            logs=LOGS,
        )
