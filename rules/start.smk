"""What is looked at before the first job, and written down after a failure."""

from unveil.jobs import hold_results
from unveil.slurm import check_slurm
from unveil.workflow.overview import write_overview


onstart:
    try:
        if SHARED:
            hold_results(config["results"])
        if workflow.executor_plugin and workflow.executor_plugin.name == "slurm":
            check_slurm(rule.resources for rule in workflow.rules)
    except InputError as error:
        raise WorkflowError(str(error)) from None


onerror:
    if not STORED:
        list_what_is_there(
            Path(config["results"]),
            DIVISION.shards,
            logs=f"{config['results']}/logs",
        )
