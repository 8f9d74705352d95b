"""What the reference engine holds beyond the contract: true layer inputs, and a GPU's samples."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from wavewn.engine.reference import ReferenceEngine
from wavewn.engine.weights import pack_wavenet
from wavewn.state import StreamState

ATOL = 1e-5  # float32; the two sides differ in the order of sums and in how they write a sigmoid
HOP = 20


def true_levels(model, batch, frames):
    audio = torch.rand(batch, frames * HOP, generator=torch.Generator().manual_seed(3)) - 0.5
    return model.levels(audio)


@torch.no_grad()
def network(model, levels, mel, speaker):
    """Teacher-forced parameters; the mel goes on in silence."""
    padded = F.pad(mel, (0, model.condition.look_ahead), value=float(model.mel_silence))
    return model(levels, padded, speaker)


def test_the_state_holds_the_true_layer_inputs(plain_model, voice, mel_of):
    """Other engines take over from here, so rings hold what the network computes."""
    seen = []
    plain_model.stack.layers[4].gate.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    mel, levels = mel_of(2, 6), true_levels(plain_model, 2, 6)
    network(plain_model, levels, mel, None)
    state = StreamState.zeros(voice.layout, 2)
    padded = F.pad(mel, (0, 2), value=float(plain_model.mel_silence))
    voice.parameters(state, padded, levels)

    ring = state.history("layers.4")

    assert ring.shape == (2, 2, 8)
    assert_close(ring, seen[0][:, -2:], rtol=0, atol=ATOL)
    assert torch.equal(state.view("level")[:, 0, 0], levels[:, -1])
    assert state.view("ahead").flatten().tolist() == [2, 2]


@pytest.mark.gpu
def test_cached_parameters_are_the_networks_on_a_gpu(model, mel_of, speaker_of):
    engine = ReferenceEngine(pack_wavenet(model), "cuda")
    mel, levels = mel_of(2, 5), true_levels(model, 2, 5)
    speaker = speaker_of(engine, 2)
    padded = F.pad(mel, (0, engine.look_ahead), value=float(model.mel_silence))
    state = StreamState.zeros(engine.layout, 2, device=engine.device)
    own = None if speaker is None else speaker.cuda()

    found = engine.parameters(state, padded.cuda(), levels.cuda(), speaker=own).cpu()

    assert_close(found, network(model, levels, mel, speaker), rtol=0, atol=ATOL)
