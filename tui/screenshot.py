"""Screenshot of a replay as SVG, without a terminal: `python -m tui.screenshot RUN FILE`.

`make screenshot` draws docs/tui.svg with it.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from common.errors import FcclError
from common.run_directory import recorded_run
from common.run_directory.recorded_run import RecordedRun
from tui.data.replay import Replay
from tui.replay_app import ReplayApp

SHARE = 0.6  # of the run's time has passed in the picture
SIZE = (120, 36)
REFRESH_WAIT_S = 1.0  # the screen refreshes twice a second


async def draw(run: RecordedRun) -> str:
    """Return the screen as SVG, a little after the middle of the run."""
    now = 0.0
    replay = Replay(run, speed=1.0, monotonic=lambda: now)
    replay.start()
    now = SHARE * (run.ended_at - run.started_at)
    app = ReplayApp(replay)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.pause(REFRESH_WAIT_S)
        return app.export_screenshot()


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python -m tui.screenshot RUN FILE")
    run, file = map(Path, sys.argv[1:])
    try:
        svg = asyncio.run(draw(recorded_run.read_run(run)))
    except FcclError as error:
        sys.exit(f"fccl: {error}")
    file.write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
