"""The object ``snakemake`` that a rule script finds, by the documentation of Snakemake 9."""

from collections.abc import Iterator
from typing import Any

class Items:
    """Files or values of a rule, by position or by the name that the rule gives.

    What is under a name is a string, or a list of strings where the rule gives several; among
    params, whatever the rule has put there.
    """

    def __getitem__(self, position: int | str) -> Any: ...
    def __getattr__(self, name: str) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...
    def __len__(self) -> int: ...
    def get(self, name: str, default: Any = None) -> Any: ...

class Snakemake:
    input: Items
    output: Items
    params: Items
    wildcards: Items
    resources: Items
    log: Items
    threads: int
    config: dict[str, Any]
    rule: str
    scriptdir: str

snakemake: Snakemake
