"""The stage cloudfree: images that people use, of dates without a truth."""
