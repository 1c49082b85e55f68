"""What is looked at before the first job."""


onstart:
    try:
        if SHARED:
            hold_results(RESULTS)
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
