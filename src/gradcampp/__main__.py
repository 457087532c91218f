"""``python -m gradcampp`` is the command ``gradcampp``."""

from gradcampp.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
