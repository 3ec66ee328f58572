"""What a user can ask for. The terminal program and the engine both import this package, and neither pays for torch.

`structs` is the schema, `schema` walks it, `rules` are the cross-field checks, `sources` reads files and `--set`,
`presets` are starting points, `prompts` reads sample lines.
"""

from engine.config.presets import CAPTION_DROPOUT, PRESETS
from engine.config.rules import rules
from engine.config.schema import check, describe, fields, help_of, json_schema, leaves, spell, to_toml
from engine.config.sources import Request, read_file, toml_value
from engine.config.structs import (
    KINDS,
    AdapterUse,
    Generate,
    Job,
    Model,
    Operate,
    Optimizer,
    Picture,
    Prior,
    Runtime,
    Subset,
    TargetSet,
    Train,
)
from engine.errors import Problem, UserError

__all__ = [
    "CAPTION_DROPOUT",
    "KINDS",
    "PRESETS",
    "AdapterUse",
    "Generate",
    "Job",
    "Model",
    "Operate",
    "Optimizer",
    "Picture",
    "Prior",
    "Problem",
    "Request",
    "Runtime",
    "Subset",
    "TargetSet",
    "Train",
    "UserError",
    "check",
    "describe",
    "fields",
    "help_of",
    "json_schema",
    "leaves",
    "read_file",
    "rules",
    "spell",
    "to_toml",
    "toml_value",
]
