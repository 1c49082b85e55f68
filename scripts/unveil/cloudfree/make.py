"""Making a product: the files of every date, its Items, Collection and page."""

from __future__ import annotations

import datetime as dt
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unveil import raster
from unveil.cloudfree import images
from unveil.cloudfree.area import inside_of
from unveil.cloudfree.choice import Choice
from unveil.cloudfree.images import Written
from unveil.cloudfree.item import Answer, collection_of, date_of, item_of
from unveil.cloudfree.page import Day, render_page
from unveil.cloudfree.quality import expected
from unveil.predictions import image_path, require_intact, std_path
from unveil.records import identify, kept, made_of, sums_of, write_record
from unveil.scene import NO_ACQUISITION, Scene

LOG = logging.getLogger(__name__)
OCCLUDED = ("eo:cloud_cover", "unveil:shadow_cover")


@dataclass(frozen=True)
class Made:
    """What the earlier stages made of a product.

    Attributes:
        scenes: its scenes, ready for models, by id.
        contents: their checksums, by id.
        records: of each shard, model -> its records, one per scene that it was asked for, in the
            order in which models were asked.
        predictions: ``results/predictions``.
    """

    scenes: Mapping[str, Scene]
    contents: Mapping[str, str]
    records: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]]
    predictions: Path


def make_product(
    product: str,
    made: Made,
    choice: Choice,
    folder: Path,
    *,
    models: Mapping[str, Mapping[str, Any]],
    clip: str,
    code: str,
    rule: str,
) -> None:
    """Write the dates of a product, then its page and its Collection.

    Args:
        product: id of the row of the scene table.
        made: what the earlier stages made.
        choice: how its models were chosen.
        folder: ``results/cloudfree/PRODUCT``.
        models: id -> row of the models table.
        clip: GeoJSON file of the place; empty for all of the grid.
        code: checksum of the code behind this stage.
        rule: the rule whose job this is.

    Raises:
        InputError: if a prediction is not as it was written, or no polygon lies over the place.
    """
    items: list[dict[str, Any]] = []
    days: list[Day] = []
    missing: dict[str, str] = {}
    for number, scene in enumerate(sorted(made.scenes.values(), key=_date), 1):
        date = scene.target.date
        LOG.info("%s: %s, %d of %d", product, date, number, len(made.scenes))
        answer, reasons = _answer_for(scene, made.records, models)
        if answer is None:
            missing[date] = "; ".join(f"{model}: {why}" for model, why in reasons.items())
            shutil.rmtree(folder / date, ignore_errors=True)
            LOG.warning("%s: no image of %s, %s", product, date, missing[date])
            continue
        item = _make_date(
            product, scene, answer, made, choice, folder / date, clip=clip, code=code, rule=rule
        )
        items.append(item)
        days.append(Day.of(scene, item, folder / date))
    _discard_others(folder, {date_of(item) for item in items})
    first = next(iter(made.scenes.values()))
    facts = {
        "missing": missing,
        "choice": {"basis": choice.basis, "models": list(choice.models), "errors": choice.errors},
    }
    render_page(folder / "index.html", product, first, days, missing=missing, choice=choice)
    write_record(
        folder / "collection.json",
        collection_of(product, items, place=first.place, facts=facts),
        files=_sums(folder, [folder / "index.html"]),
        rule=rule,
    )


def _date(scene: Scene) -> str:
    return scene.target.date


def _answer_for(
    scene: Scene,
    records: Sequence[Mapping[str, Sequence[Mapping[str, Any]]]],
    models: Mapping[str, Mapping[str, Any]],
) -> tuple[Answer | None, dict[str, str]]:
    """Return what answered for a scene, and why others before it did not."""
    reasons: dict[str, str] = {}
    asked = (
        (model, record) for shard in records for model, rows in shard.items() for record in rows
    )
    for model, record in asked:
        if record["scene"] != scene.id:
            continue
        if record["status"] == "predicted":
            row = models[model]
            return Answer(model, row.get("title", model), row["kind"], record, reasons), reasons
        reasons[model] = record["reason"]
    return None, reasons


def _make_date(
    product: str,
    scene: Scene,
    answer: Answer,
    made: Made,
    choice: Choice,
    folder: Path,
    *,
    clip: str,
    code: str,
    rule: str,
) -> dict[str, Any]:
    """Write the files of a date and its Item last; what is there and the same is kept."""
    date = scene.target.date
    predictions = made.predictions / answer.model
    quality = expected(answer.model, date, hidden_share(scene), choice.own, choice.others)
    identity = identify(
        scene=made.contents[scene.id],
        prediction=made_of(answer.record)["files"],
        model=[answer.model, answer.title, answer.kind, dict(answer.passed_over)],
        quality=quality.facts,
        clip=raster.sha256(clip) if clip else "",
        code=code,
    )
    path = folder / f"{date}.json"
    known = kept(path, identity)
    if known is not None:
        return known
    require_intact(answer.record, predictions, rule="infer_cloudfree")
    path.unlink(missing_ok=True)
    std = std_path(predictions, scene.id)
    written = images.write_images(
        scene,
        image_path(predictions, scene.id),
        std if std in _vouched(answer.record, predictions) else None,
        folder,
        inside=inside_of(scene.grid, clip),
        tags=_tags(scene, answer),
    )
    written = _with_browse(written, folder)
    item = item_of(
        scene,
        written,
        answer,
        quality,
        product=product,
        folder=folder,
        now=dt.datetime.now(dt.UTC),
    )
    files = _sums(folder, written.files.values())
    return write_record(path, item, made_from=identity, files=files, rule=rule)


def _vouched(record: Mapping[str, Any], folder: Path) -> set[Path]:
    return {folder / name for name in made_of(record)["files"]}


def hidden_share(scene: Scene) -> float:
    """Return the share of the target that is hidden: all of a date without an acquisition."""
    facts = scene.target.facts
    if NO_ACQUISITION in facts:
        return 1.0
    return min(1.0, sum(float(facts.get(key, 0)) for key in OCCLUDED) / 100)


def _tags(scene: Scene, answer: Answer) -> dict[str, str]:
    tags = {
        "TIFFTAG_IMAGEDESCRIPTION": f"Cloud-free surface on {scene.target.date}",
        "TIFFTAG_SOFTWARE": "Unveil",
        "DATE": scene.target.date,
        "MODEL": answer.model,
        "MODEL_KIND": answer.kind,
        "PLACE": scene.place,
        "LOOKS": ", ".join(frame.date for frame in scene.context),
    }
    for key in ("licence", "attribution"):
        if scene.facts.get(key):
            tags[key.upper()] = str(scene.facts[key])
    return tags


def _with_browse(written: Written, folder: Path) -> Written:
    """Write the preview of an image."""
    bands = tuple(written.statistics)
    small = images.read_small(written.files["bands"], bands, images.shown_bands(bands))
    images.write_png(folder / "browse.png", images.paint(small, images.stretch_of(small)))
    return replace(written, files={**written.files, "browse": folder / "browse.png"})


def _sums(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): known for path, known in sums_of(files).items()}


def _discard_others(folder: Path, dates: set[str]) -> None:
    """Remove dates that an earlier run made and this one does not have."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if (path / f"{path.name}.json").is_file() and path.name not in dates:
            shutil.rmtree(path)
