"""`python -m functions.relay` runs the workers as a process that stays, as the relay's service does."""

from __future__ import annotations

import asyncio

from functions.relay.process import main

if __name__ == "__main__":
    asyncio.run(main())
