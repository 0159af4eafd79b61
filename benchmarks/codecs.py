"""Size and relative error of the payload codecs on a million values.

python -m benchmarks.codecs
"""

from __future__ import annotations

import numpy as np

from common.protocol import codec
from common.protocol.fields import CodecName

NAMES: tuple[CodecName, ...] = ("fp32", "bf16", "int8", "int4", "topk")


def main() -> None:
    rng = np.random.default_rng(0)
    samples = {
        "Gaussian": rng.standard_normal(10**6).astype(np.float32),
        "heavy-tailed": rng.standard_t(3, 10**6).astype(np.float32),
    }
    print("| codec | bytes per value | " + " | ".join(samples) + " |\n| --- | --- | --- | --- |")
    for name in NAMES:
        cells = []
        for values in samples.values():
            entries, data = codec.encode(name, {"x": values})
            error = codec.decode(name, entries, data)["x"] - values
            cells.append(f"{np.linalg.norm(error) / np.linalg.norm(values):.2%}")
        print(f"| {name} | {len(data) / 10**6:.2f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
