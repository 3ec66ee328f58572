"""Before a training run: images and base, looked at, and what will be adapted.

Everything that can be found wrong with a request is found here, before the first picture is encoded. A dry run ends
behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine import protocol
from engine.config import Problem, Train, UserError
from engine.context import Context
from engine.data import dataset, plan
from engine.data.check import check_lengths
from engine.data.dataset import Dataset
from engine.data.notes import summary
from engine.jobs import device
from engine.lora.inject import Selection, choose
from engine.models.base import Family
from engine.models.load import resolve_base
from engine.training import schedule
from engine.training.targets import TARGET_SETS, asked

Chosen = dict[str, dict[str, tuple[int, float]]]
"""Part → module path → (rank, alpha)."""


@dataclass(frozen=True)
class Prepared:
    """A run that could begin: its base, its images, what will be adapted, and its length."""

    family: Family
    images: Dataset
    plan: plan.Plan
    chosen: Chosen
    resolution: int
    place: device.Place


def prepare(config: Train, context: Context) -> Prepared:
    """Images and base, looked at and found good; the plan is in the journal."""
    context.stage("check", unit="images")
    place = device.choose(config.runtime)
    base = resolve_base(config.model.base)
    resolution = plan.resolution(config.dataset, base.default_resolution, base.size_step)
    images = dataset.build(
        config.dataset,
        root=context.directory,
        resolution=resolution,
        step=base.size_step,
        seed=config.training.seed,
        progress=context.progress,
    )
    context.stage("load")
    family, notices = device.load(config.model, config.runtime, place)
    context.notices(notices)
    captions = ((item.path, item.caption) for item in (*images.items, *images.class_items))
    context.notices(summary([*images.notes, *check_lengths(captions, family.count_tokens, family.max_tokens)]))
    chosen = choose(family.parts, selections(config, family))
    arithmetic = plan.of_run(config, images.items, len(images.class_items))
    if problems := schedule.problems(config, arithmetic.steps):
        raise UserError(problems)
    context.journal.emit(
        protocol.PlanMade(
            text=arithmetic.describe(),
            steps=arithmetic.steps,
            epochs=arithmetic.epochs,
            images=arithmetic.images,
            class_images=arithmetic.class_images,
            modules=sum(map(len, chosen.values())),
            base=family.title,
            captions=images.caption_sources(),
        )
    )
    return Prepared(family, images, arithmetic, chosen, resolution, place)


def selections(config: Train, family: Family) -> list[Selection]:
    """Which modules are adapted, with what rank and alpha. Raises UserError for a choice that trains nothing."""
    optimizer = config.optimizer
    rates = {part: optimizer.lr_unet if part == family.denoiser else optimizer.lr_text for part in family.parts}
    found, problems = [], []
    for field, targets, rank, alpha in asked(config):
        named = family.targets(targets) if targets in TARGET_SETS else None
        names = frozenset(f"{part}.{path}" for part, paths in (named or {}).items() for path in paths)
        selection = Selection(rank, alpha, names, "" if named is not None else targets)
        held = choose(family.parts, [Selection(1, 1, selection.names, selection.pattern)])
        problems += _selection_problems(field, targets, rank, held, rates, family)
        found.append(selection)
    if not problems and not choose(family.parts, found):
        problems.append(
            Problem(
                where="adapter.sets",
                expected="at least one module to adapt",
                found="none: these sets give every module rank 0",
                advice="raise a rank, or leave the set out",
            )
        )
    if problems:
        raise UserError(problems)
    return found


def _selection_problems(
    field: str, targets: str, rank: int, held: Chosen, rates: dict[str, float], family: Family
) -> list[Problem]:
    if not held:
        return [
            Problem(
                where=field,
                expected=f"one of {', '.join(TARGET_SETS)}, or a pattern over names such as "
                f"`{family.denoiser}.mid_block.*`",
                found=f"`{targets}`, which holds no module of this base",
            )
        ]
    return [
        Problem(
            where=field,
            expected=f"a learning rate above 0 for `{part}`, whose modules it holds",
            found="0",
            advice="raise the rate, set the rank of these modules to 0, or narrow the pattern",
        )
        for part in held
        if rank and not rates[part]
    ]
