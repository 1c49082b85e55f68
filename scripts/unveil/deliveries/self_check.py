"""Check answers before they are sent.

    python self_check.py ANSWERS

Looks at every file that requests.json asks for: is it there, a GeoTIFF on the right grid, with
bands named as asked, of a type that can hold reflectance? Needs nothing but Python 3.8 or later.
What the numbers mean is checked by those who receive them.
"""

import json
import re
import struct
import sys
from pathlib import Path

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8}
LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q"}
WIDTH, HEIGHT, BITS, SAMPLES, FORMAT = 256, 257, 258, 277, 339
PIXEL_SCALE, TIE_POINT, MATRIX, GEO_KEYS, GDAL_METADATA = 33550, 33922, 34264, 34735, 42112
KINDS = {(1, 16): "uint16", (2, 16): "int16", (3, 32): "float32", (3, 64): "float64"}


def read_tags(path):
    """Return the tags of the first image of a TIFF, classic or BigTIFF, as tuples or bytes."""
    with open(path, "rb") as stream:
        head = stream.read(16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None:
            raise ValueError("is no TIFF")
        big = struct.unpack(order + "H", head[2:4])[0] == 43
        start = struct.unpack(order + ("Q" if big else "I"), head[8:16] if big else head[4:8])[0]
        stream.seek(start)
        count = struct.unpack(order + ("Q" if big else "H"), stream.read(8 if big else 2))[0]
        layout = order + ("HHQ8s" if big else "HHI4s")
        entries = [stream.read(struct.calcsize(layout)) for _ in range(min(count, 4096))]
        tags = {}
        for entry in entries:
            tag, kind, number, value = struct.unpack(layout, entry)
            length = SIZES.get(kind, 1) * number
            if length > len(value):
                stream.seek(struct.unpack(order + ("Q" if big else "I"), value)[0])
                value = stream.read(length)
            value = value[:length]
            if kind in LETTERS:
                tags[tag] = struct.unpack(order + str(number) + LETTERS[kind], value)
            else:
                tags[tag] = value
        return tags


def transform_of(tags):
    """Return a, b, c, d, e, f of x = a col + b row + c and y = d col + e row + f."""
    if MATRIX in tags:
        m = tags[MATRIX]
        return [m[0], m[1], m[3], m[4], m[5], m[7]]
    if PIXEL_SCALE not in tags or TIE_POINT not in tags:
        return None
    (sx, sy), (col, row, _, x, y) = tags[PIXEL_SCALE][:2], tags[TIE_POINT][:5]
    return [sx, 0.0, x - col * sx, 0.0, -sy, y + row * sy]


def epsg_of(tags):
    """Return the EPSG code of the projection, None where none is stated."""
    keys = tags.get(GEO_KEYS, ())
    for at in range(4, len(keys) - 3, 4):
        if keys[at] in (2048, 3072) and keys[at + 1] == 0 and keys[at + 3] < 32767:
            code = keys[at + 3]
            if keys[at] == 3072:
                return code
    for at in range(4, len(keys) - 3, 4):
        if keys[at] == 2048 and keys[at + 1] == 0 and keys[at + 3] < 32767:
            return keys[at + 3]
    return None


def band_names(tags):
    """Return the description of every band, None where it has none."""
    text = tags.get(GDAL_METADATA, b"").decode("utf-8", "replace")
    names = [None] * tags.get(SAMPLES, (1,))[0]
    for attributes, name in re.findall(r"<Item ([^>]*)>([^<]*)</Item>", text):
        sample = re.search(r'sample="(\d+)"', attributes)
        if 'role="description"' in attributes and sample and int(sample.group(1)) < len(names):
            names[int(sample.group(1))] = name.strip()
    return names


def faults_of(path, request):
    """Return what is wrong with one answer, a sentence each."""
    if not path.is_file():
        return ["is missing"]
    try:
        tags = read_tags(path)
    except (ValueError, struct.error, OSError) as error:
        return [f"is no TIFF that can be read: {error}"]
    faults = []
    grid = request["grid"]
    shape = (tags[WIDTH][0], tags[HEIGHT][0])
    if shape != (grid["width"], grid["height"]):
        wanted = f"{grid['width']} x {grid['height']}"
        faults.append(f"has {shape[0]} x {shape[1]} pixels instead of {wanted}")
    found = transform_of(tags)
    wanted = grid["transform"]
    edge = abs(wanted[0])
    if found is None:
        faults.append("has no georeference")
    elif any(abs(f - w) > 1e-3 * edge for f, w in zip(found, wanted)):  # noqa: B905 - Python 3.8
        faults.append(f"lies at {found} instead of {wanted}")
    code = re.match(r"EPSG:(\d+)$", grid["crs"])
    if code and epsg_of(tags) not in (None, int(code.group(1))):
        faults.append(f"is in EPSG:{epsg_of(tags)} instead of {grid['crs']}")
    names = band_names(tags)
    for number, name in enumerate(names, 1):
        if name not in request["bands"]:
            asked = ", ".join(request["bands"])
            faults.append(f"band {number} is described {name!r}; asked for are {asked}")
    if len(set(names)) < len(names):
        faults.append("names a band twice")
    kind = KINDS.get((tags.get(FORMAT, (1,))[0], tags[BITS][0]))
    if kind is None:
        faults.append("is not of uint16, int16, float32 or float64")
    return faults


def main():
    """Check all answers, and say what is wrong; exit with 1 where something is."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    answers = Path(sys.argv[1])
    requests = json.loads((Path(__file__).parent / "requests.json").read_text())["scenes"]
    wrong = 0
    for request in requests:
        faults = faults_of(answers / request["answer"], request)
        wrong += bool(faults)
        for fault in faults:
            print(f"{request['answer']}: {fault}")
    asked = {request["answer"] for request in requests}
    for path in sorted(answers.glob("*.tif")):
        if path.name not in asked:
            print(f"{path.name}: was not asked for")
    print(f"{len(requests) - wrong} of {len(requests)} answers fit")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
