"""``python -m gradcampp`` is the command ``gradcampp``."""

from __future__ import annotations

from gradcampp.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
