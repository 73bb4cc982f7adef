"""The stylise benchmark: values, baselines beside every score, references computed once."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from animegen.benchmarks.benchmark import Score
from animegen.benchmarks.registry import METRICS, metric_info
from animegen.benchmarks.stylise import StyliseBenchmark
from animegen.data.views import PairedView, StillView
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.metrics import image as measures
from animegen.metrics.distribution import fid, kid, pool
from animegen.metrics.perceptual import PerceptualDistance
from animegen.nn.features import FeatureExtractor

BASELINES = ["identity", "colour_transfer", "lookup_table"]


class Pictures:
    """Images in memory as an image source; counts how often one is asked for."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.asked = images, 0

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Tensor:
        self.asked += 1
        return self.images[index]

    def name(self, index: int) -> str:
        return f"picture-{index}"


def photos(count: int = 5, size: int = 32) -> Pictures:
    return Pictures(torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8))


def negatives(source: Pictures) -> Pictures:
    return Pictures(255 - source.images)


def paired(test: Pictures | None = None, **options: object) -> StyliseBenchmark:
    test, train = test or photos(), photos()
    view = PairedView(test, negatives(test), size=32, shuffle=False)
    return StyliseBenchmark(view, train, negatives(train), negatives(train), **options)  # type: ignore[arg-type]


def unpaired(test: Pictures, stills: Pictures, **options: object) -> StyliseBenchmark:
    train = photos()
    return StyliseBenchmark(
        StillView(test, size=32, shuffle=False),
        train,
        negatives(train),
        stills=StillView(stills, key="anime", size=32, shuffle=False),
        paired=False,
        **options,  # type: ignore[arg-type]
    )


def summary(values: Tensor) -> Score:
    return {"mean": float(values.double().mean()), "std": float(values.double().std()), "n": len(values)}


def same(got: Score, wanted: Score) -> bool:
    return got["n"] == wanted["n"] and all(got[k] == pytest.approx(wanted[k], abs=1e-6) for k in ("mean", "std"))


def test_scores_are_those_of_the_measures() -> None:
    test = photos()
    scores = paired(test).evaluate({"model": lambda photo: -photo * 0.5})
    photo = to_float(test.images)
    output, truth = -photo * 0.5, to_float(255 - test.images)
    assert list(scores) == [*BASELINES, "model"]
    row = scores["model"]
    assert list(row) == ["psnr", "ssim", "edge_f", "flatness", "flatness_gap", "colour_distance"]
    assert same(row["psnr"], summary(measures.psnr(output, truth)))
    assert same(row["ssim"], summary(measures.ssim(output, truth)))
    assert same(row["edge_f"], summary(measures.edge_f_score(output, truth)))
    assert same(row["colour_distance"], summary(measures.colour_distance(output, truth)))
    gap = (measures.flatness(output) - measures.flatness(truth)).abs()
    assert same(row["flatness_gap"], summary(gap))
    assert same(scores["identity"]["psnr"], summary(measures.psnr(photo, truth)))


def test_the_table_inverts_where_nothing_else_can() -> None:
    scores = paired().evaluate({})
    means = {name: scores[name]["psnr"]["mean"] for name in BASELINES}
    assert means["lookup_table"] is not None
    assert means["lookup_table"] > 40  # negatives are a map of colours
    assert means["colour_transfer"] == pytest.approx(means["identity"], abs=0.5)  # equal moments, so no change


def test_results_do_not_depend_on_the_batch_size() -> None:
    test, model = photos(), {"model": lambda photo: photo.flip(1)}
    torch.manual_seed(1)
    one = paired(test, batch_size=1).evaluate(model)
    torch.manual_seed(1)
    four = paired(test, batch_size=4).evaluate(model)
    for name in one:
        for metric in one[name]:
            assert same(one[name][metric], four[name][metric])


def test_baselines_are_scored_once_and_always_returned() -> None:
    benchmark = paired()
    first = benchmark.evaluate({"model": lambda photo: photo})
    calls = []

    class Counting:
        def __call__(self, photo: Tensor) -> Tensor:
            calls.append(1)
            return photo

    benchmark.baselines["identity"] = Counting()
    again = benchmark.evaluate({"other": lambda photo: -photo})
    assert not calls
    assert list(again) == [*BASELINES, "other"]
    assert again["identity"] == first["identity"]
    train_photos = benchmark.train_photos
    assert isinstance(train_photos, Pictures)
    assert train_photos.asked == 2 * 5  # once for the transfer, once for the table


def test_without_pairs_there_is_no_table() -> None:
    test, train = photos(), photos()
    view = PairedView(test, negatives(test), size=32, shuffle=False)
    assert list(StyliseBenchmark(view, train, negatives(train)).evaluate({})) == BASELINES[:2]


def test_outputs_are_measured_as_they_would_be_stored() -> None:
    scores = paired().evaluate({"truth": lambda photo: -photo, "beyond": lambda photo: (-photo * 40).clamp(-9, 9)})
    assert scores["truth"]["psnr"]["mean"] == measures.PSNR_CEILING
    beyond = scores["beyond"]["psnr"]["mean"]
    assert beyond is not None
    assert 0 < beyond < 20  # clipped to the range, an error of 9 would give -10 dB


def test_an_output_that_is_not_finite_makes_the_method_nan() -> None:
    def model(photo: Tensor) -> Tensor:
        output = photo.clone()
        output[-1, 0, 0, 0] = torch.nan
        return output

    test = photos(70)
    extractor = FeatureExtractor("squeezenet1_1", "random")
    scores = unpaired(test, photos(70), extractor=extractor, batch_size=70).evaluate({"model": model})
    for metric in ("content_edge_f", f"fid_{extractor.name}", f"kid_{extractor.name}"):
        mean = scores["model"][metric]["mean"]
        assert mean is not None
        assert math.isnan(mean)
        assert math.isfinite(scores["identity"][metric]["mean"])  # type: ignore[arg-type]


def test_perceptual_distance_carries_the_networks_name() -> None:
    extractor = FeatureExtractor("squeezenet1_1", "random")
    test = photos()
    scores = paired(test, extractor=extractor).evaluate({"model": lambda photo: photo * 0.5})
    photo, truth = to_float(test.images), to_float(255 - test.images)
    expected = PerceptualDistance(extractor)(photo * 0.5, truth)
    assert same(scores["model"]["perceptual_squeezenet1_1_random"], summary(expected))


def test_unpaired_compares_with_photo_and_stills() -> None:
    extractor = FeatureExtractor("squeezenet1_1", "random")
    test, stills = photos(5), photos(6)
    benchmark = unpaired(test, stills, extractor=extractor, batch_size=2)
    assert benchmark.main == "kid_squeezenet1_1_random"
    scores = benchmark.evaluate({"model": lambda photo: photo * 0.5})
    photo = to_float(test.images)
    row = scores["model"]
    assert row["chroma_ratio"]["mean"] == pytest.approx(0.5)
    assert row["high_frequency_ratio"]["mean"] == pytest.approx(0.25, rel=1e-3)
    flat = measures.flatness(to_float(stills.images)).mean()
    assert same(row["flatness_gap"], summary((measures.flatness(photo * 0.5) - flat).abs()))
    assert same(row["content_edge_f"], summary(measures.edge_f_score(photo * 0.5, photo)))
    assert scores["identity"]["content_squeezenet1_1_random"]["mean"] == 0

    def vectors(images: Tensor) -> Tensor:
        return pool(extractor(images, ["fire9"])["fire9"])

    against_stills = kid(vectors(to_float(stills.images)), vectors(photo * 0.5))
    against_photos = kid(vectors(photo), vectors(photo * 0.5))
    assert against_stills is not None
    assert against_photos is not None
    got = row["kid_squeezenet1_1_random"]
    assert (got["mean"], got["std"], got["n"]) == (
        pytest.approx(against_stills.value, abs=1e-5),
        pytest.approx(against_stills.spread, abs=1e-5),
        5,
    )
    assert row["photo_kid_squeezenet1_1_random"]["mean"] == pytest.approx(against_photos.value, abs=1e-5)
    assert "fid_squeezenet1_1_random" not in row  # five images do not span 64 dimensions
    assert fid(vectors(photo), vectors(photo)) is None


def test_limit_takes_samples_spread_over_the_set() -> None:
    test = photos(10)
    benchmark = paired(test, limit=2)
    scores = benchmark.evaluate({})
    chosen = to_float(test.images[[2, 7]])
    assert same(scores["identity"]["psnr"], summary(measures.psnr(chosen, -chosen)))
    headers, rows = benchmark.sample_rows({}, count=1)
    assert len(rows) == 1
    torch.testing.assert_close(rows[0][headers.index("photo")], chosen[1])


def test_images_show_input_methods_truth() -> None:
    test = photos(4)
    headers, rows = paired(test, batch_size=3).sample_rows({"model": lambda photo: photo * 0.5}, count=4)
    assert headers == ["photo", "colour_transfer", "lookup_table", "model", "truth"]
    assert len(rows) == 4
    photo = to_float(test.images[3])
    torch.testing.assert_close(rows[3][0], photo)
    torch.testing.assert_close(rows[3][3], photo * 0.5)
    torch.testing.assert_close(rows[3][4], to_float(255 - test.images[3]))


def test_invalid_values_are_reported() -> None:
    with pytest.raises(AnimegenError, match="shape"):
        paired().evaluate({"model": lambda photo: photo[..., 1:]})
    with pytest.raises(AnimegenError, match="name of a baseline"):
        paired().evaluate({"identity": lambda photo: photo})
    with pytest.raises(AnimegenError, match="needs stills"):
        StyliseBenchmark(StillView(photos(), size=32, shuffle=False), photos(), photos(), paired=False)
    with pytest.raises(AnimegenError, match="shuffle=False"):
        StyliseBenchmark(PairedView(photos(), photos(), size=32), photos(), photos())
    with pytest.raises(AnimegenError, match="no 'anime'"):
        StyliseBenchmark(StillView(photos(), size=32, shuffle=False), photos(), photos()).evaluate({})


def test_every_reported_metric_is_registered() -> None:
    extractor = FeatureExtractor("squeezenet1_1", "random")
    rows = [
        paired(extractor=extractor, stills=StillView(photos(), key="anime", size=32, shuffle=False)).evaluate({}),
        unpaired(photos(), photos(), extractor=extractor).evaluate({}),
    ]
    for scores in rows:
        for metric in scores["identity"]:
            assert metric_info(metric).description
    assert metric_info("content_edge_f").better == "higher"  # the exact name before the family "content_"
    assert metric_info("photo_kid_vgg19") is METRICS["photo_kid_"]
    assert metric_info("lpips_alex") is METRICS["lpips_"]
    with pytest.raises(KeyError):
        metric_info("nonsense")


@pytest.mark.cuda
def test_cuda_agrees_with_the_cpu() -> None:
    test = photos()
    benchmark = paired(test, extractor=FeatureExtractor("squeezenet1_1", "random"))
    on_cpu = benchmark.evaluate({"a": lambda photo: photo * 0.5})["a"]
    on_cuda = benchmark.evaluate({"a": lambda photo: photo * 0.5}, device="cuda")["a"]
    for metric, score in on_cpu.items():
        assert on_cuda[metric]["mean"] == pytest.approx(score["mean"], rel=1e-2, abs=1e-3)
