"""Write a product: images of all dates, Items, Collection and page (rule make_cloudfree)."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snakemake.script import snakemake

sys.path.insert(0, snakemake.scriptdir)  # this checkout's package, whichever is installed

from unveil.cloudfree.choice import Choice
from unveil.cloudfree.make import Made, make_product
from unveil.records import read_record
from unveil.workflow.archives import pack, unpack
from unveil.workflow.job import job
from unveil.workflow.shards import read_shard, recorded_scenes

with job(snakemake.log[0]):
    params, given = snakemake.params, snakemake.input
    unpack(given.get("archives", []), [params.home, params.predictions])
    made = Made(
        scenes={k: v for shard in given.scenes for k, v in read_shard(shard, params.home).items()},
        contents={k: v for shard in given.scenes for k, v in recorded_scenes(shard).items()},
        records=[read_record(path, kind="an inference record")["models"] for path in given.records],
        predictions=Path(params.predictions),
    )
    folder = Path(snakemake.output.collection).parent
    make_product(
        snakemake.wildcards.product,
        made,
        Choice.of(read_record(given.choice, kind="a choice of models")),
        folder,
        models=dict(params.models),
        clip=params.clip,
        code=params.code,
        rule=snakemake.rule,
    )
    made_files = sorted(path for path in folder.rglob("*") if path.is_file())
    pack(snakemake.output.get("archives", []), made_files)
