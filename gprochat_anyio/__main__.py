"""`python -m gprochat_anyio`: the `gprochat` command."""

from __future__ import annotations

from gprochat_anyio.cli import main

if __name__ == "__main__":
    main()
