"""Views of key-frame projects: patches for training, cropped on the device, and whole frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from animegen.data.keyframes.carried import FlowKeys
from animegen.data.keyframes.guides import FileGuide, Guide, Guides
from animegen.data.keyframes.patches import Centres, HardPlaces, PatchBank, WholeImages, normal_noise
from animegen.data.keyframes.prefilter import BilateralFilter
from animegen.data.keyframes.project import Frames, KeyframeProject, spread
from animegen.data.sampler import counter_hash, counter_hash_tensor, random_bits
from animegen.data.views import View
from animegen.errors import AnimegenError
from animegen.media.images import to_float
from animegen.media.video.flow import DISFlow
from animegen.nn.warp import consistent


class KeyframeClip:
    """The frames of a project, denoised and with their guides.

    Args:
        project: the project.
        guides: name -> guide; a :class:`FileGuide` reads the project's images of that name.
        prefilter: denoises the frames.
    """

    def __init__(
        self,
        project: KeyframeProject,
        guides: Mapping[str, Guide | None] | None = None,
        prefilter: BilateralFilter | None = None,
    ) -> None:
        self.project = project
        self.photo: Frames = project.photo if prefilter is None else prefilter(project.photo)
        self.guides = {name: guide for name, guide in (guides or {}).items() if guide is not None}
        self._moving: dict[str, list[Tensor]] | None = None
        self._still: dict[tuple[str, int], Tensor] = {}
        for name, guide in self.guides.items():
            if not isinstance(guide, FileGuide):
                continue
            if name not in project.guides:
                known = ", ".join(project.guides) or "none"
                raise AnimegenError(
                    f"The project has no files for the guide '{name}' (it has: {known}): add an image per frame to"
                    f" guides/{name}."
                )
            channels = project.guides[name][0].shape[0]
            if channels != guide.channels:
                raise AnimegenError(
                    f"The images of the guide '{name}' have {channels} channels, not {guide.channels}: set"
                    f" model.guides.{name}.channels={channels}."
                )
        self.teach(self.guides.values())

    def teach(self, guides: Iterable[Guide]) -> None:
        """Give the key frames to the guides that carry them."""
        project = self.project
        for guide in guides:
            if isinstance(guide, FlowKeys):
                photos = torch.stack([self.photo[key] for key in project.keys])
                guide.learn(photos, torch.stack([project.drawings[key] for key in project.keys]), project.areas)

    def guide(self, number: int) -> Tensor:
        """Return the guides of a frame, uint8 (G, H, W); G is 0 without guides."""
        if not self.guides:
            return torch.zeros(0, *self.project.size, dtype=torch.uint8)
        return torch.cat([self._drawn(name, guide, number) for name, guide in self.guides.items()])

    def _drawn(self, name: str, guide: Guide, number: int) -> Tensor:
        if isinstance(guide, FileGuide):
            return self.project.guides[name][number]
        if guide.moves:
            return self._draw_moving()[name][number]
        if (name, number) not in self._still:
            self._still[name, number] = guide.draw(None, to_float(self.photo[number])[None])
        return self._still[name, number]

    def _draw_moving(self) -> dict[str, list[Tensor]]:
        """Draw the guides that depend on earlier frames for the whole clip."""
        if self._moving is None:
            made = {name: guide for name, guide in self.guides.items() if guide.moves}
            self._moving = {name: [] for name in made}
            stack, state = Guides(made), None
            for number in range(len(self.project)):
                drawn, state = stack.next(to_float(self.photo[number])[None], state)
                parts = drawn.split([guide.channels for guide in made.values()])
                for name, part in zip(made, parts, strict=True):
                    self._moving[name].append(part.clone())
        return self._moving

    def views(self, key: int) -> Tensor:
        """Return a key frame with the guides that it is trained with, uint8 (V, 3 + G, H, W); see `FlowKeys.views`."""
        carried = next((guide for guide in self.guides.values() if isinstance(guide, FlowKeys)), None)
        if carried is None:
            return self.stack([key])
        project, photo = self.project, self.photo[key]
        near = [n for n in range(len(project)) if n not in project.keys and project.nearest_key(n) == key]
        frames = [to_float(self.photo[near[k]])[None] for k in spread(carried.rehearsals, len(near))]
        others = {
            name: None if guide is carried else self._drawn(name, guide, key) for name, guide in self.guides.items()
        }
        return torch.stack(
            [
                torch.cat([photo, *(view if other is None else other for other in others.values())])
                for view in carried.views(project.keys.index(key), frames)
            ]
        )

    def stack(self, numbers: Sequence[int]) -> Tensor:
        """Return frames with their guides, uint8 (N, 3 + G, H, W)."""
        return torch.stack([torch.cat([self.photo[n], self.guide(n)]) for n in numbers])


class KeyPatches(View):
    """Training view of patches of the key frames and their drawings.

    A sample is its number; :meth:`finish` crops a batch of patches on the device:

    ===========================  =======================================================================
    ``photo``                    (B, 3, Q, Q), Q = patch + 2 * context
    ``guide``                    (B, G, Q, Q), if there are guides
    ``anime``                    (B, 3, patch, patch), the drawing without the context
    ``other``                    (B, 3, patch, patch), a drawing elsewhere in the same key frame
    ``place``                    (B,), the linear index of the centre
    ``unlabelled`` ...           with ``unlabelled``: see :meth:`_cut_unlabelled`
    ===========================  =======================================================================

    Args:
        clip: frames and guides.
        patch: side of the patches in pixels; ``None`` for whole frames, cropped to multiples of 4.
        context: additional pixels on every side of the input.
        balance: see :class:`~animegen.data.keyframes.patches.Centres`.
        hard_mining: fraction of the patches drawn by hard mining.
        flip: flip half of the patches horizontally.
        noise: standard deviation of noise added to the photos, in units of [-1, 1].
        unlabelled: also crop patches from frames without drawing.
        unlabelled_frames: number of these frames kept on the device, each with its next frame.
        seed: seed of the patches.
    """

    def __init__(
        self,
        clip: KeyframeClip,
        patch: int | None = 36,
        context: int = 0,
        balance: str = "round_robin",
        hard_mining: float = 0.0,
        flip: bool = False,
        noise: float = 0.0,
        unlabelled: bool = False,
        unlabelled_frames: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__([], 1 if patch is None else patch, seed, shuffle=True)
        if patch is None and context:
            raise AnimegenError("Whole frames (data.patch=null) have no context: set data.context=0.")
        if not 0 <= hard_mining <= 1 or noise < 0 or unlabelled_frames < 1:
            raise AnimegenError(
                "data.hard_mining must be in [0, 1], data.noise at least 0 and data.unlabelled_frames at least 1, not"
                f" {hard_mining}, {noise} and {unlabelled_frames}."
            )
        self.clip, self.context, self.balance, self.share = clip, context, balance, hard_mining
        self.patch, self.flip, self.noise = patch, flip, noise
        self.unlabelled, self.unlabelled_frames = unlabelled, unlabelled_frames
        self._bank: PatchBank | WholeImages | None = None
        self._centres: Centres | None = None
        self.hard: HardPlaces | None = None

    @property
    def aligned(self) -> list[list[str]]:
        """Groups of batch keys with aligned images: photo and drawing."""
        return [["photo", "anime"]]

    @property
    def centres(self) -> Centres:
        """The patch centres."""
        self.prepare()
        assert self._centres is not None
        return self._centres

    def prepare(self) -> None:
        """Read the key frames, draw the guides and create the patch banks."""
        if self._bank is not None:
            return
        project, keys = self.clip.project, self.clip.project.keys
        self._centres = Centres(project.areas, self.seed, self.balance)
        self.hard = HardPlaces(self._centres) if self.share else None
        images = []
        for key in keys:
            views = self.clip.views(key)
            images.append(torch.cat([views, project.drawings[key].expand(len(views), -1, -1, -1)], 1))
        self._views = torch.tensor([len(views) for views in images])
        bank = self._lay_out(torch.cat(images))
        if self.unlabelled:
            self._prepare_unlabelled()
        self._bank = bank

    def _lay_out(self, images: Tensor) -> PatchBank | WholeImages:
        return WholeImages(images) if self.patch is None else PatchBank(images, self.patch, self.context)

    def _prepare_unlabelled(self) -> None:
        project = self.clip.project
        without = [n for n in range(len(project) - 1) if n not in project.keys]
        if not without:
            raise AnimegenError("All frames of the clip have drawings: set data.unlabelled=false.")
        chosen = [without[k] for k in spread(self.unlabelled_frames, len(without))]
        pairs = torch.cat([self.clip.stack(chosen), self.clip.stack([n + 1 for n in chosen])], 1)
        estimate, motions = DISFlow(), []
        for n in chosen:
            first, second = (to_float(self.clip.photo[m])[None] for m in (n, n + 1))
            there, back = estimate(first, second), estimate(second, first)
            motions.append(torch.cat([there, consistent(there, back).float()], 1))
        self._pairs, self._motions = self._lay_out(pairs), self._lay_out(torch.cat(motions))
        keys = project.keys
        self._nearest = torch.tensor([keys.index(project.nearest_key(n)) for n in chosen])

    def __len__(self) -> int:
        return len(self.centres)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return ``sample``: the number, int64."""
        return {"sample": torch.tensor(number)}

    def name(self, number: int) -> str:
        """Return the name of the key frame of a sample."""
        image, _, _ = self.centres.split(self.centres([number]))
        return self.clip.project.names[self.clip.project.keys[int(image)]]

    def places(self, numbers: list[int]) -> Tensor:
        """Return the linear indices (B,) of the patch centres of samples."""
        places = self.centres(numbers)
        if self.hard is None:
            return places
        bits = random_bits(counter_hash_tensor(counter_hash(self.seed, "mining"), torch.tensor(numbers)))
        return torch.where(bits < self.share * 2**24, self.hard(numbers), places)

    def finish(self, sample: Tensor) -> dict[str, Tensor]:
        """Return the batch of sample numbers (B,), float in [-1, 1] on their device; see the class."""
        self.prepare()
        assert self._bank is not None
        numbers = sample.tolist()
        places = self.places(numbers).to(sample.device)
        bank = self._bank.to(sample.device)
        patches = bank.cut(*self._centre(places, sample))
        if self.flip:
            patches = self._flipped(patches, sample)
        patches = to_float(patches)
        guides = patches.shape[1] - 6
        photo = patches[:, :3]
        if self.noise:
            photo = photo + self.noise * normal_noise(photo.shape, sample, self.seed)
        batch = {"photo": photo, "anime": self._middle(patches[:, 3 + guides :]), "place": places, "sample": sample}
        elsewhere = bank.cut(*self._centre(self.centres.elsewhere(numbers).to(sample.device), sample))
        batch["other"] = to_float(self._middle(elsewhere[:, 3 + guides :]))
        if guides:
            batch["guide"] = patches[:, 3 : 3 + guides]
        return {**batch, **self._cut_unlabelled(sample, guides)} if self.unlabelled else batch

    def _centre(self, places: Tensor, sample: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return image in the bank, row and column, (B,) each, of centres: a random view of each key frame."""
        key, row, column = self.centres.split(places)
        counts = self._views.to(sample.device)
        draws = random_bits(counter_hash_tensor(counter_hash(self.seed, "view"), sample))
        return (counts.cumsum(0) - counts)[key] + ((draws * counts[key]) >> 24), row, column

    def _cut_unlabelled(self, sample: Tensor, guides: int) -> dict[str, Tensor]:
        """Crop patches of frames without drawing.

        ``unlabelled`` and ``following`` (B, 3, Q, Q): the same position in a frame and the next one, with their guides
        ``unlabelled_guide`` and ``following_guide``; ``motion`` (B, 2, Q, Q) and ``seen`` (B, 1, Q, Q): the flow
        between them and its validity; ``style`` (B, 3, patch, patch): a random patch of the nearest drawing.
        """
        assert self._bank is not None
        height, width = self.clip.project.size
        prefix = counter_hash(self.seed, "unlabelled")
        draws = random_bits(counter_hash_tensor(prefix, sample[:, None], torch.arange(5, device=sample.device)))
        frame, row, column = ((draws[:, k] * n) >> 24 for k, n in enumerate((len(self._nearest), height, width)))
        pairs = to_float(self._pairs.to(sample.device).cut(frame, row, column))
        first, second = pairs.chunk(2, 1)
        motion = self._motions.to(sample.device).cut(frame, row, column)
        nearest = self._nearest.to(sample.device)[frame]
        first_view = (self._views.cumsum(0) - self._views).to(sample.device)[nearest]
        drawing = self._bank.cut(first_view, *((draws[:, k] * n) >> 24 for k, n in ((3, height), (4, width))))
        batch = {
            "unlabelled": first[:, :3],
            "following": second[:, :3],
            "motion": motion[:, :2],
            "seen": motion[:, 2:],
            "style": to_float(self._middle(drawing[:, 3 + guides :])),
        }
        if guides:
            batch |= {"unlabelled_guide": first[:, 3:], "following_guide": second[:, 3:]}
        return batch

    def _middle(self, patches: Tensor) -> Tensor:
        return patches[..., self.context : -self.context, self.context : -self.context] if self.context else patches

    def _flipped(self, patches: Tensor, sample: Tensor) -> Tensor:
        bits = random_bits(counter_hash_tensor(counter_hash(self.seed, "flip"), sample))
        return torch.where((bits < 2**23).view(-1, 1, 1, 1), patches.flip(-1), patches)

    def preview(self, count: int) -> dict[str, Tensor]:
        """Return whole key frames, as :class:`WholeFrames` does."""
        return WholeFrames(self.clip, self.clip.project.keys).preview(count)


class WholeFrames(View):
    """Whole frames of the clip: ``photo``, ``guide`` if there are guides, ``anime`` if the drawings are known.

    Args:
        clip: frames and guides.
        numbers: numbers of the frames.
    """

    def __init__(self, clip: KeyframeClip, numbers: Sequence[int]) -> None:
        super().__init__([], 1, 0, shuffle=False)
        self.clip, self.numbers = clip, list(numbers)
        project = clip.project
        self._known = all(n in project.scored or n in project.keys for n in self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        """Return uint8 images, and ``sample``: the number, int64."""
        if not 0 <= number < len(self):
            raise IndexError(f"sample {number} of {len(self)}")
        frame = self.numbers[number]
        sample = {"photo": self.clip.photo[frame], "sample": torch.tensor(number)}
        if self._known:
            sample["anime"] = self.clip.project.answer(frame)
        return {**sample, "guide": self.clip.guide(frame)} if self.clip.guides else sample

    def name(self, number: int) -> str:
        """Return the name of a frame."""
        return self.clip.project.names[self.numbers[number]]

    def prepare(self) -> None:
        """Draw the guides."""
        if self.clip.guides and self.numbers:
            self.clip.guide(self.numbers[0])

    def preview(self, count: int) -> dict[str, Tensor]:
        """Return up to ``count`` evenly spaced frames as one batch."""
        chosen = [self[n] for n in spread(count, len(self))]
        return {key: torch.stack([sample[key] for sample in chosen]) for key in chosen[0]}
