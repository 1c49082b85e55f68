"""Where the workflow lies, and what the machines that run its jobs can see."""

import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import ExecMode, SharedFSUsage

# Not workflow.basedir: in a module that is the folder of the importing workflow.
HERE = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
sys.path.insert(0, str(HERE / "scripts"))
# The configuration of a module is what the importing workflow gives it.
MAIN = workflow.modifier.is_main_snakefile()
from unveil.config import require_yaml
from unveil.errors import InputError
from unveil.redaction import redact

if MAIN:
    try:
        require_yaml(["config/config.yaml", *workflow.configfiles])
    except InputError as error:
        raise WorkflowError(str(error)) from None

COMMAND = redact("snakemake " + " ".join(shlex.quote(word) for word in sys.argv[1:]))
# All machines see the working directory; results are kept in a store; this process is a job on a
# machine that sees nothing else: rules/store.smk.
SHARED = SharedFSUsage.INPUT_OUTPUT in workflow.storage_settings.shared_fs_usage
STORED = not SHARED or workflow.storage_settings.default_storage_provider is not None
ELSEWHERE = not SHARED and workflow.exec_mode != ExecMode.DEFAULT

# Ways of deploying software that jobs are told, as --sdm names them.
DEPLOYED = {way.name.lower() for way in workflow.deployment_settings.deployment_method}


def seen(paths):
    """Declare files of the working directory and of the workflow, where jobs can see them."""
    return [local(str(path)) for path in paths] if SHARED else []
