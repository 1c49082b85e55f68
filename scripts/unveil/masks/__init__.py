"""Cloud, shadow and snow masks: detectors, and their merge to one class raster per frame."""
