"""Material that may lie beside the repository: trained models and reference values."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS = SHARED / "data" / "models"
REFERENCE = SHARED / "reference"

needs_shared = pytest.mark.skipif(
    not MODELS.is_dir(), reason="the folder `shared` with trained models does not lie beside the repository"
)
