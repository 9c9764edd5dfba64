"""Training on features of 33 GB stays under 2 GiB: shown on a file of that size (sparse: it uses no disk space)."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.support.forked import answer_of, program

IMAGES, REGIONS, FEATURES = 226_574, 36, 2048
BATCH, BATCHES = 128, 40
TRAIN_STEPS = 3
READ_AT_RANDOM = f"""
import json, resource, sys
import numpy as np
from pathlib import Path
from tshsr.data.regions import RegionFeatures
def peak():  # on Linux of this process alone: getrusage starts from the parent's figure
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = peak()
features = RegionFeatures.open(Path(sys.argv[1]))
draw = np.random.default_rng(0)
read = sum(features.read(draw.integers(0, len(features), {BATCH})).regions.nbytes for _ in range({BATCHES}))
after = peak()
import torch
from tshsr.config.models import EncoderConfig, TshsrConfig
from tshsr.config.run import LossConfig
from tshsr.data.batches import pad_sequences
from tshsr.models.tshsr import Tshsr
from tshsr.training.objective import Objective
encoder = EncoderConfig(dim=64, feature_dim={FEATURES}, vocabulary=50, word_dim=32)
objective = Objective(Tshsr(TshsrConfig(encoder=encoder, similarity_dim=16)), LossConfig(), candidates=4)
optimiser = torch.optim.Adam(objective.parameters())
captions = pad_sequences([[1 + i % 40] * 12 for i in range({BATCH})])
for step in range({TRAIN_STEPS}):
    images = features.read(draw.integers(0, len(features), {BATCH}))
    optimiser.zero_grad()
    objective(images, captions, torch.arange({BATCH}), hardest=True, seed=step)["loss"].backward()
    optimiser.step()
print(json.dumps({{"before": before, "after": after, "trained": peak(), "read": read, "images": len(features)}}))
"""


def sparse_features(path: Path) -> int:
    """A float16 file, twice as many images as COCO's, without allocated blocks; returns its bytes."""
    with path.open("wb") as file:
        header = {"descr": "<f2", "fortran_order": False, "shape": (IMAGES, REGIONS, FEATURES)}
        np.lib.format.write_array_header_1_0(file, header)
        size = file.tell() + IMAGES * REGIONS * FEATURES * 2
        try:
            file.truncate(size)
        except OSError as error:
            pytest.skip(f"this disk takes no sparse file of {size} bytes: {error}")
    if os.name == "posix" and path.stat().st_blocks * 512 > 2**20:
        pytest.skip("this disk stores zeros: a sparse file would take its full 33 GB")
    return size


@pytest.mark.slow
def test_random_batches_of_a_33_gb_file_stay_far_below_2_gib(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="peak memory is read by a POSIX call")
    path = tmp_path / "train_ims.npy"
    assert sparse_features(path) > 33e9
    ended, said, errors = answer_of(program, READ_AT_RANDOM, str(path))
    path.unlink()
    assert ended == 0, errors
    used = json.loads(said)
    assert used["images"] == IMAGES
    assert (
        used["read"] == BATCH * BATCHES * REGIONS * FEATURES * 4
    )  # 1.5 GB; a memory map would make half of it resident
    assert used["after"] - used["before"] < 300 * 2**20
    assert used["trained"] < 2 * 2**30
