"""Write the page of evidence, as Markdown and HTML, and its numbers (rule write_evidence)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil import raster
from unveil.evidence.document import to_html, to_markdown
from unveil.evidence.knowledge import known_places
from unveil.evidence.ranking import rank, to_tsv
from unveil.evidence.scores import read_evidence
from unveil.evidence.write import Context, Method, numbers, read_skipped, write_blocks
from unveil.models.base import ModelSpec
from unveil.models.registry import create
from unveil.places.table import read_places
from unveil.records import require_recorded
from unveil.workflow.job import job
from unveil.workflow.shards import scene_files


def family_of(name, row):
    """Return the family of a method: by its weights, and by whether it sees other dates."""
    model = create(ModelSpec.from_row(name, row))
    if row["kind"] == "cloudy":
        return "baseline"
    if row["kind"] == "least_cloudy":
        return "date"
    one_image = model.needs.max_context == 0
    if model.network:
        return "image network" if one_image else "series network"
    return "image" if one_image else "simple"


with job(snakemake.log[0]):
    inputs, params = snakemake.input, snakemake.params
    require_recorded(inputs.checksums, [inputs.metrics, inputs.skipped])
    places = list(read_places().values())
    context = Context(
        read_evidence(Path(inputs.metrics), scene_files(inputs.scenes, params.home), params.levels),
        [
            Method(name, family_of(name, row), known_places(row, places))
            for name, row in params.models.items()
        ],
        places,
        read_skipped(Path(inputs.skipped)),
        title=params.title,
        # A document has the name of the configuration that it is made with.
        command="snakemake evidence --configfile "
        f"config/{Path(snakemake.output.document).stem}.yaml",
    )
    blocks = write_blocks(context)
    texts = {
        snakemake.output.document: to_markdown(blocks),
        snakemake.output.page: to_html(blocks, title=context.title),
        snakemake.output.ranking: to_tsv(rank(context)),
        snakemake.output.numbers: numbers(context).to_csv(index=False),
    }
    for path, text in texts.items():
        with raster.replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
