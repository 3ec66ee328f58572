"""The generation job: a base, adapters with their strengths, a prompt; out come PNG files that say how they were
made."""

from __future__ import annotations

from pathlib import Path

from engine import protocol
from engine.config import Generate, Problem, UserError
from engine.config.blends import is_blend, read_blend
from engine.context import Context
from engine.formats import companions, reading
from engine.formats.adapter import Adapter
from engine.formats.pictures import UsedAdapter
from engine.jobs import device
from engine.lora.compose import compose
from engine.lora.inject import apply
from engine.models.base import Family
from engine.sampling import sampler
from engine.sampling.files import save_picture


def run(config: Generate, context: Context) -> list[str]:
    """Run the job. Returns the files that it made."""
    place = device.choose(config.runtime)
    device.set_threads(config.runtime)
    context.stage("load")
    family, notices = device.load(config.model, config.runtime, place)
    context.notices(notices)
    requests, adapters = pictures(config, family), read_adapters(config, family)
    used = [
        UsedAdapter(Path(use.path).stem, use.weight, adapter.metadata.get("sshs_model_hash", ""))
        for use, adapter in zip(config.adapters, adapters, strict=True)
    ]
    apply(family.parts, compose(zip(adapters, (use.weight for use in config.adapters), strict=True)))
    if context.dry_run:
        return []
    context.stage("draw", sum(request.steps for request in requests), "steps")
    return [_draw(config, context, family, requests, index, used) for index in range(len(requests))]


def _draw(
    config: Generate,
    context: Context,
    family: Family,
    requests: list[sampler.Request],
    index: int,
    used: list[UsedAdapter],
) -> str:
    """Draw one picture, alone in its batch, so that it does not depend on how many others were asked for."""
    request = requests[index]
    total = sum(request.steps for request in requests)
    steps_done = iter(range(sum(request.steps for request in requests[:index]), total + 1))
    image = sampler.draw(
        family, [request], config.model.clip_skip, lambda: context.progress(next(steps_done, total), total)
    )[0]
    path = numbered(Path(config.picture.out), index, len(requests))
    save_picture(path, image, request, family, config.model, config.adapters, used)
    context.journal.emit(protocol.Sample(step=0, path=str(path), prompt=request.prompt, seed=request.seed, index=index))
    return str(path)


def read_adapters(config: Generate, family: Family) -> list[Adapter]:
    """The adapters of a request, as `read_all` reads them."""
    return read_all(family, [use.path for use in config.adapters])


def read_all(family: Family, files: list[str]) -> list[Adapter]:
    """The adapters in files or blends. Raises UserError with everything that is wrong with any of them."""
    adapters, problems = [], []
    for file in files:
        try:
            adapters.append(read_adapter(family, Path(file)))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(problems)
    return adapters


def read_adapter(family: Family, path: Path) -> Adapter:
    """An adapter file, or a blend of some, as plain factors for this base.

    Raises UserError with everything that is wrong with it.
    """
    if is_blend(path):
        blend = read_blend(path).adapters
        adapters = read_all(family, [one.path for one in blend])
        return compose(zip(adapters, (one.weight_of for one in blend), strict=True))
    targets = family.kohya_names().values()
    shapes = {(part, name): tuple(family.parts[part].get_submodule(name).weight.shape) for part, name in targets}
    return reading.fitted(companions.read_whole(path), shapes, path)


def pictures(config: Generate, family: Family) -> list[sampler.Request]:
    """The pictures that were asked for, seeds counted up from the first."""
    asked = config.picture
    width, height = (family.default_resolution if side == "auto" else side for side in (asked.width, asked.height))
    problems = [
        Problem(
            where="picture",
            field=name,
            expected=f"a multiple of {family.size_step} pixels for {family.title}",
            found=str(side),
            advice=f"{max(1, round(side / family.size_step)) * family.size_step} is the nearest",
        )
        for name, side in (("width", width), ("height", height))
        if side % family.size_step
    ]
    if problems:
        raise UserError(problems)
    return [
        sampler.Request(
            prompt=asked.prompt,
            negative=asked.negative,
            seed=asked.seed + number,
            width=width,
            height=height,
            steps=asked.steps,
            guidance_scale=asked.guidance_scale,
        )
        for number in range(asked.count)
    ]


def numbered(out: Path, index: int, count: int) -> Path:
    """Where a picture goes: `out` itself for a single one, else `out-0001` and so on beside it."""
    return out if count == 1 else out.with_stem(f"{out.stem}-{index + 1:04d}")
