"""Clips and frames: the same values as flatten and stack, and single frames in their memory format."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from animegen.nn.clips import stack_frames, to_clips, to_frames


@pytest.mark.parametrize("length", [1, 3])
def test_values_and_shapes_are_those_of_flatten_and_stack(length: int) -> None:
    clips = torch.rand(2, length, 4, 5, 6)
    assert torch.equal(to_frames(clips), clips.flatten(0, 1))
    assert torch.equal(to_clips(clips.flatten(0, 1), length), clips)
    assert torch.equal(stack_frames(clips.unbind(1)), clips)


def test_single_frames_stay_in_channels_last_and_are_not_copied() -> None:
    frame = torch.rand(1, 4, 5, 6).contiguous(memory_format=torch.channels_last)
    back = to_frames(stack_frames([to_clips(frame, 1)[:, 0]]))
    assert back.data_ptr() == frame.data_ptr()
    assert back.stride() == frame.stride()
    padded = F.pad(back, (1, 1, 1, 1), mode="reflect")
    assert padded.is_contiguous(memory_format=torch.channels_last)
    # What happens otherwise.
    assert not F.pad(frame.unsqueeze(1).flatten(0, 1), (1, 1, 1, 1), mode="reflect").is_contiguous(
        memory_format=torch.channels_last
    )
