# Snakemake ships no types. Here is what rule scripts use of it.
