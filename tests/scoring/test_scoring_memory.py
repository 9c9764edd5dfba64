"""The byte budget of scoring holds: measured, not computed."""

import json
import sys

import pytest

from tests.support.forked import answer_of, program

SCORE = """
import json, sys
from pathlib import Path
import torch
from tshsr.config.models import EncoderConfig, TshsrConfig
from tshsr.data.batches import ImageBatch
from tshsr.data.tokens import TokenIds
from tshsr.models.tshsr import Tshsr
from tshsr.scoring import all_pairs as scoring
from tshsr.scoring.options import ScoringOptions

def peak():  # of this process alone: getrusage's figure begins with that of the process which started it
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

torch.set_num_threads(1)
scoring.CACHE_TILE = 2**40  # the budget alone decides
network = Tshsr(TshsrConfig(encoder=EncoderConfig(dim=1024, feature_dim=64, vocabulary=50)))
images = [ImageBatch(torch.randn(24, 36, 64), torch.ones(24, 36, dtype=torch.bool))]
captions = TokenIds.of([[1 + i % 40] * 12 for i in range(24)])
scoring.score_all_pairs(network, iter(images), captions, ScoringOptions(byte_budget=network.bytes_per_pair(36, 12)))
before = peak()
scoring.score_all_pairs(network, iter(images), captions, ScoringOptions(byte_budget=int(sys.argv[1])))
print(json.dumps(peak() - before))
"""


@pytest.mark.slow
def test_the_temporaries_of_full_size_scoring_stay_within_the_budget() -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("peak memory is read from /proc, which only Linux has")
    budget = 128 * 2**20  # about a third of what all 576 pairs at once would take
    ended, said, errors = answer_of(program, SCORE, str(budget))
    assert ended == 0, errors
    grown = json.loads(said)
    assert 2**20 < grown < budget
