"""What is looked at before the first job goes to a cluster."""


onstart:
    if workflow.executor_plugin and workflow.executor_plugin.name == "slurm":
        try:
            check_slurm(rule.resources for rule in workflow.rules)
        except InputError as error:
            raise WorkflowError(str(error)) from None
