"""Rules that several fields break together; what a single field accepts stands beside the field in structs.py.

A rule is a small function from a config to its problems. They all run, whatever the others find.
"""

from __future__ import annotations

import msgspec

from engine.config import operations, prompts
from engine.config.schema import Origins
from engine.config.structs import Job, Operate, Train
from engine.errors import Problem, UserError


def rules(config: Job, origin: Origins) -> list[Problem]:
    """What single fields can't tell: every rule that the fields break together."""
    return [problem for rule in _RULES.get(type(config), ()) for problem in rule(config, origin)]


def _length(config: Train, origin: Origins) -> list[Problem]:
    steps, epochs = config.training.steps, config.training.epochs
    if bool(steps) != bool(epochs):
        return []
    return [
        Problem(
            where=origin("training.steps"),
            field="training.steps",
            expected="a length either in steps or in epochs",
            found=f"steps = {steps} and epochs = {epochs}",
            advice="set the one that is not meant to 0",
        )
    ]


def _something_to_train(config: Train, origin: Origins) -> list[Problem]:
    if config.optimizer.lr_unet or config.optimizer.lr_text:
        return []
    return [
        Problem(
            where=origin("optimizer.lr_unet"),
            field="optimizer.lr_unet",
            expected="a learning rate above 0 for the denoiser or the text encoder",
            found="lr_unet = 0 and lr_text = 0",
            advice="nothing would be trained; 1e-4 is a usual lr_unet",
        )
    ]


def _silent_sets(config: Train, origin: Origins) -> list[Problem]:
    return [
        Problem(
            where=origin(f"adapter.sets[{index}].alpha"),
            field=f"adapter.sets[{index}].alpha",
            expected=f"a number above 0 for a rank of {chosen.rank}",
            found=f"{chosen.alpha:g}",
            advice="these modules would never change: raise alpha, or set their rank to 0 to leave them alone",
        )
        for index, chosen in enumerate(config.adapter.sets)
        if chosen.rank and not chosen.alpha
    ]


def _prior(config: Train, origin: Origins) -> list[Problem]:
    regular = [index for index, subset in enumerate(config.dataset.subsets) if subset.is_reg]
    if len(regular) == len(config.dataset.subsets):
        return [
            Problem(
                where=origin("dataset.subsets"),
                field="dataset.subsets",
                expected="at least one subset of instance images",
                found="class images (is_reg) alone",
                advice="add a subset with the pictures to learn",
            )
        ]
    if regular and not config.prior.weight:
        return [
            Problem(
                where=origin(f"dataset.subsets[{index}].is_reg"),
                field=f"dataset.subsets[{index}].is_reg",
                expected="a prior.weight above 0 where there are class images",
                found="prior.weight = 0",
                advice="they would be read and never used: set prior.weight, or leave the subset out",
            )
            for index in regular
        ]
    if config.prior.weight and not regular and not config.prior.prompt.strip():
        return [
            Problem(
                where=origin("prior.prompt"),
                field="prior.prompt",
                expected="what the class images show, since no subset brings any",
                found="nothing",
                advice='set prior.prompt = "a photo of a cat" or the like, add a subset with is_reg = true, '
                "or set prior.weight = 0",
            )
        ]
    return []


def _warmup(config: Train, origin: Origins) -> list[Problem]:
    warmup, steps = config.schedule.warmup, config.training.steps
    if warmup == "auto" or not steps or warmup <= steps:
        return []
    return [
        Problem(
            where=origin("schedule.warmup"),
            field="schedule.warmup",
            expected=f"at most the {steps} steps of the run",
            found=str(warmup),
            advice="the rates would never reach their height",
        )
    ]


def _file_name(config: Train, origin: Origins) -> list[Problem]:
    taboo = [word for word in ("checkpoint", "optimizer", "scheduler") if word in config.name.lower()]
    if not taboo:
        return []
    return [
        Problem(
            where=origin("name"),
            field="name",
            expected=f"a name without the word `{taboo[0]}`",
            found=config.name,
            advice="diffusers passes over adapter files whose name holds it",
        )
    ]


def _sample_prompts(config: Train, origin: Origins) -> list[Problem]:
    problems = []
    for index, line in enumerate(config.sampling.prompts):
        try:
            prompts.parse(line)
        except ValueError as error:
            place = f"sampling.prompts[{index}]"
            advice = "example: a cat in rain --n blurry --w 512 --h 512 --d 42 --l 7 --s 28"
            problems.append(Problem(where=origin(place), field=place, found=str(error), advice=advice))
    return problems


def _sampling_interval(config: Train, origin: Origins) -> list[Problem]:
    if not config.sampling.epochs or config.sampling.every == "auto":
        return []
    return [
        Problem(
            where=origin("sampling.every"),
            field="sampling.every",
            expected="an interval either in steps or in epochs",
            found=f"every = {config.sampling.every} and epochs = {config.sampling.epochs}",
            advice='set every = "auto" to use epochs, or epochs = 0 to use steps',
        )
    ]


def _operation(config: Operate, origin: Origins) -> list[Problem]:
    """The request of an operation is checked as that operation's own struct."""
    if config.operation not in operations.OPERATIONS:
        return [
            Problem(
                where=origin("operation"),
                field="operation",
                expected=f"one of {', '.join(operations.OPERATIONS)}",
                found=repr(config.operation),
            )
        ]
    try:
        operations.checked(config.operation, config.request)
    except UserError as error:
        places = [f"request.{problem.field}" if problem.field else "request" for problem in error.problems]
        return [
            msgspec.structs.replace(problem, where=origin(place), field=place)
            for problem, place in zip(error.problems, places, strict=True)
        ]
    return []


_RULES = {
    Operate: (_operation,),
    Train: (
        _length, _something_to_train, _silent_sets, _prior, _warmup, _file_name, _sample_prompts, _sampling_interval,
    ),
}  # fmt: skip
