"""The GRU that trains on processors: the states and gradients of PyTorch's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from tshsr.config.models import EncoderConfig
from tshsr.data.batches import pad_sequences
from tshsr.models.encoders import GruWordEncoder
from tshsr.models.pooling import GeneralisedPooling
from tshsr.models.recurrence import gru_states

SAME = {"rtol": 1e-9, "atol": 1e-11}  # float64: only the order of additions differs


@pytest.mark.parametrize("lengths", [(3, 7, 1, 7, 2), (1,), (4, 4, 4), (5, 2)])
def test_states_and_gradients_are_those_of_pytorch(lengths: tuple[int, ...]) -> None:
    gru = nn.GRU(4, 5, batch_first=True, bidirectional=True).double()
    inputs = torch.randn(len(lengths), 8, 4, dtype=torch.float64, requires_grad=True)
    weigh = torch.randn(len(lengths), 8, 10, dtype=torch.float64)
    found = []
    for ours in (False, True):
        packed = pack_padded_sequence(inputs, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        states = gru_states(gru, packed, 8) if ours else pad_packed_sequence(gru(packed)[0], True, total_length=8)[0]
        gradients = torch.autograd.grad((states * weigh).sum(), [inputs, *gru.parameters()])
        found.append([states, *gradients])
    for plain, own in zip(*found, strict=True):
        torch.testing.assert_close(own, plain, **SAME)


def test_gradients_are_those_of_small_differences() -> None:
    gru = nn.GRU(2, 3, batch_first=True, bidirectional=True).double()
    inputs = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)

    def states(inputs: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(inputs, torch.tensor([2, 4, 1]), batch_first=True, enforce_sorted=False)
        return gru_states(gru, packed, 4)

    assert torch.autograd.gradcheck(states, (inputs, *gru.parameters()))


def test_the_encoder_gives_the_same_rows_in_training_and_evaluation() -> None:
    encoder = GruWordEncoder(EncoderConfig(dim=8, word_dim=6, vocabulary=20, dropout=0.0, word_dropout=0.0)).double()
    captions = pad_sequences([[3, 5, 7], [2], [4, 4, 4, 4, 9]])
    torch.testing.assert_close(encoder.train()(captions), encoder.eval()(captions), **SAME)


@pytest.mark.parametrize(
    "build", [lambda: GruWordEncoder(EncoderConfig(dim=8, word_dim=6, vocabulary=20)), GeneralisedPooling]
)
def test_no_gru_rounds_its_factors_to_tf32_on_a_gpu(build: Callable[[], nn.Module]) -> None:
    module = build().eval()
    gru, allowed = module.gru, []
    assert isinstance(gru, nn.GRU)
    gru.register_forward_pre_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
    if isinstance(module, GeneralisedPooling):
        module(torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    else:
        module(pad_sequences([[3, 5], [2]]))
    assert allowed == [False]
    assert torch.backends.cudnn.allow_tf32, "the setting of the process is restored"
