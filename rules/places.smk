"""Public places: fetched by URL and checksum, laid out as folders in the cache."""

from unveil.places.table import RECORD, folder_of, read_places

try:
    PLACES = [place.id for place in read_places().values() if place.size]
except InputError as error:
    raise WorkflowError(str(error)) from None

if not SHARED and any(source_of(row).made for row in TABLES.scenes.values()):
    raise WorkflowError(
        "Scenes of source place need a file system that all jobs share. Remedy: run them with "
        "another profile, or take them out of the scene table."
    )


wildcard_constraints:
    place="|".join(PLACES),


def place_record(place):
    """Name the file that says a public place is there."""
    return str(folder_of(place, config["cache"]) / RECORD)


rule make_place:
    """Fetch one public place and lay it out as frames, masks and radar."""
    output:
        record=local(place_record("{place}")),
    log:
        "<logs>/make_place/{place}.log",
    retries: 2
    conda:
        "../envs/scenes.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
        disk_mb=1000,
    params:
        code=code_of("make_place"),
        cache=f"{config['cache']}/packages",
    message:
        "Fetching the place {wildcards.place}"
    script:
        "../scripts/make_place.py"


rule places:
    """Fetch all public places that take part in evidence."""
    input:
        [local(place_record(place)) for place in PLACES],
