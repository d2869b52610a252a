"""The model registry: versions, lineage, the champion."""
