"""The repository that these rules lie in, and its package `unveil`."""

import sys
from pathlib import Path

# Not workflow.basedir: in a module that is the folder of the importing workflow.
HERE = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
sys.path.insert(0, str(HERE / "scripts"))

# The configuration of a module is what the importing workflow gives it.
MAIN = workflow.modifier.is_main_snakefile()
