import math

import pytest
import torch

from animegen.errors import AnimegenError
from animegen.losses import DecentralisedGramStyle, FeatureL1, GANLoss, PatchNCE

LOGITS = torch.tensor([-2.0, 0.0, 0.5, 3.0]).view(2, 1, 1, 2)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target": "real", "real_label": 0.9}, (2.9**2 + 0.9**2 + 0.4**2 + 2.1**2) / 4),
        ({"target": "fake", "fake_label": 0.1}, (2.1**2 + 0.1**2 + 0.4**2 + 2.9**2) / 4),
        (
            {"target": "real", "side": "generator", "real_label": 0.9, "fake_label": 0.1},
            (8.41 + 0.81 + 0.16 + 4.41) / 4,
        ),
        ({"target": "fake", "real_label": 0.9}, (4 + 0 + 0.25 + 9) / 4),
    ],
)
def test_labels_of_least_squares(options, expected):
    assert GANLoss("lsgan", **options)(LOGITS).item() == pytest.approx(expected, rel=1e-6)


def test_labels_of_vanilla_are_probabilities():
    probability = torch.sigmoid(LOGITS)
    expected = -(0.9 * probability.log() + 0.1 * (1 - probability).log()).mean()
    torch.testing.assert_close(GANLoss("vanilla", "real", real_label=0.9)(LOGITS), expected)
    with pytest.raises(AnimegenError, match=r"probabilities.*real_label=1.2"):
        GANLoss("vanilla", real_label=1.2)
    with pytest.raises(AnimegenError, match="hinge has no labels"):
        GANLoss("hinge", real_label=0.9)


def test_feature_l1_per_channel():
    image, reference = {"content": torch.ones(2, 4, 3, 3)}, {"content": torch.full((2, 4, 3, 3), 3.0)}
    assert FeatureL1()(image, reference).item() == 2
    assert FeatureL1(per_channel=True)(image, reference).item() == 0.5


def test_decentralised_gram_by_hand():
    # Centred: (-1, 1) and (0, 0). Gram / CHW = [[2, 0], [0, 0]] / 4; mean |.| = 1/8; divided by 2 channels.
    features = torch.tensor([1.0, 3.0, 2.0, 2.0]).view(1, 2, 1, 2)
    zero = {"style": torch.zeros(1, 2, 3, 3)}
    assert DecentralisedGramStyle()({"style": features}, zero).item() == pytest.approx(1 / 16)


def test_decentralised_gram_ignores_means_and_batch_size_and_spares_the_reference():
    loss = DecentralisedGramStyle(["a", "b"])
    image = {"a": noise(2, 4, 5, 5).requires_grad_(), "b": noise(2, 6, 3, 3, seed=1).requires_grad_()}
    reference = {"a": noise(2, 4, 7, 7, seed=2).requires_grad_(), "b": noise(2, 6, 3, 3, seed=3)}
    value = loss(image, reference)
    value.backward()
    assert image["a"].grad.abs().max() > 0
    assert reference["a"].grad is None
    shifted = {name: x.detach() + noise(1, x.shape[1], 1, 1, seed=4) for name, x in image.items()}
    torch.testing.assert_close(loss(shifted, reference), value)
    single = torch.stack(
        [
            loss({n: x[i : i + 1] for n, x in image.items()}, {n: x[i : i + 1] for n, x in reference.items()})
            for i in range(2)
        ]
    )
    torch.testing.assert_close(single.mean(), value)
    with torch.autocast("cpu", torch.bfloat16):
        assert loss({n: x.bfloat16() for n, x in image.items()}, reference).dtype == torch.float32


def test_patchnce_by_hand():
    places = torch.eye(2).view(1, 2, 1, 2)  # two places, orthogonal features
    for scale in (1.0, 5.0):  # only directions count
        same = PatchNCE(temperature=0.5)({"content": scale * places}, {"content": places})
        assert same.item() == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-5)
    swapped = PatchNCE(temperature=0.5)({"content": places.flip(-1)}, {"content": places})
    assert swapped.item() == pytest.approx(math.log(1 + math.exp(2)), rel=1e-5)


def test_patchnce_compares_the_same_places_of_the_same_image():
    image, reference = noise(3, 8, 4, 5).requires_grad_(), noise(3, 8, 4, 5, seed=1).requires_grad_()
    loss = PatchNCE(temperature=0.1)({"content": image}, {"content": reference})
    slow = []
    for q, k in zip(image, reference, strict=True):
        q, k = (x.flatten(1).T / x.flatten(1).norm(dim=0)[:, None] for x in (q, k))
        similar = q @ k.T / 0.1
        slow.append((similar.logsumexp(1) - similar.diagonal()).mean())
    torch.testing.assert_close(loss, torch.stack(slow).mean(), rtol=1e-5, atol=1e-6)
    loss.backward()
    assert image.grad.abs().max() > 0
    assert reference.grad is None


def test_patchnce_draws_so_many_places_again_each_time():
    features = {"content": noise(1, 8, 16, 16)}
    loss = PatchNCE(places=4)
    values = {round(loss(features, features).item(), 6) for _ in range(4)}
    assert len(values) > 1
    image = noise(1, 8, 16, 16, seed=1).requires_grad_()
    loss({"content": image}, features).backward()
    assert (image.grad.abs().sum((0, 1)) > 0).sum().item() == 4
    torch.manual_seed(3)
    first = loss(features, features)
    torch.manual_seed(3)
    assert torch.equal(loss(features, features), first)
    with pytest.raises(AnimegenError, match="PatchNCE compares"):
        loss(features, {"content": noise(1, 8, 8, 8)})
