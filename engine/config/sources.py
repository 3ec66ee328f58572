"""From what the user wrote to a checked config: files, presets and `--set`, each value remembering where it came from.

The order is: a field's default, the preset, the file, the command line. All mistakes of all are reported at once.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from datetime import date, time
from pathlib import Path
from typing import Any

from engine.config.rules import rules
from engine.config.schema import check, spell
from engine.config.structs import EMBEDDED, KINDS, Job, Train
from engine.errors import Problem, UserError

_PATHS = re.compile(
    r"dataset\.subsets\[\d+\]\.path|(request\.)?adapters\[\d+\]\.path|model\.base|model\.vae|picture\.out"
    r"|request\.(path|first|second|tuned|base|data|out)"
)
"""Fields that hold paths: a relative one is taken from the folder of the file that it was written in."""

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_FIELD = re.compile(r"[^.\[\]]+(\[\d+\]|\.[^.\[\]]+)*")


class Request:
    """A config in the making: nested tables, and for every value the place it was written in."""

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self._origins: dict[str, str] = {}
        self._problems: list[Problem] = []
        self._folders: dict[str, Path] = {}

    def read(self, path: Path) -> None:
        """Lay a TOML, YAML or JSON file over what is there. Raises UserError if it can't be read as one."""
        self._folders[str(path)] = path.absolute().parent
        self.lay(read_file(path), str(path))

    def lay(self, table: dict[str, Any], origin: str) -> None:
        """Lay nested tables over what is there; lists are replaced whole."""
        self._lay(self.data, table, origin, "")

    def _lay(self, target: dict, table: dict, origin: str, path: str) -> None:
        self._origins.setdefault("", origin)
        for key, value in table.items():
            place = f"{path}.{key}" if path else str(key)
            if isinstance(value, dict) and isinstance(target.get(key), dict):
                self._lay(target[key], value, origin, place)
            else:
                self._note(place, origin)
                target[key] = _copy(value)

    def _note(self, place: str, origin: str) -> None:
        """Everything inside `place` now comes from there."""
        self._origins = {old: name for old, name in self._origins.items() if not _inside(old, place)}
        self._origins[place] = origin

    def set(self, assignment: str) -> None:
        """Apply one `section.field=value`: a TOML value, else bare text. `dataset.subsets[0].repeats=4` works too."""
        name, equals, text = assignment.partition("=")
        name = name.strip()
        steps = [int(index) if index else key for key, index in _STEP.findall(name)]
        if not equals or not _FIELD.fullmatch(name):
            self._refuse(assignment, "section.field=value", "such as --set training.steps=500")
            return
        target: Any = self.data
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if isinstance(step, int) and not (isinstance(target, list) and step < len(target)):
                self._refuse(assignment, "an index of the list that is there", f"{name} is not in it")
                return
            if isinstance(step, str) and not isinstance(target, dict):
                self._refuse(assignment, "a table of fields on the way", f"`{step}` is not inside one")
                return
            if following is None:
                target[step] = toml_value(text)
            elif isinstance(target, dict):
                target = target.setdefault(step, {})
            else:
                target = target[step]
        self._note(name, "--set")

    def _refuse(self, assignment: str, expected: str, advice: str) -> None:
        self._problems.append(Problem(where="--set", expected=expected, found=spell(assignment), advice=advice))

    def origin(self, field: str) -> str:
        """The file or option that a field's value came from."""
        while field:
            if field in self._origins:
                return self._origins[field]
            field = field.rpartition("[")[0] if field.endswith("]") else field.rpartition(".")[0]
        return self._origins.get("", "command line")

    def checked(self, kind: type[Train] | None = None) -> Job:
        """The finished config. Raises UserError with every problem of fields and rules."""
        problems = list(self._problems)
        kinds = KINDS if kind is None else {kind.__struct_config__.tag: kind}
        asked = self.data.get("kind", next(iter(kinds)))
        struct = kinds.get(asked) if isinstance(asked, str) else None
        if struct is None:
            expected = f"one of {', '.join(kinds)}" if kind is None else f"`{next(iter(kinds))}`"
            found = spell(asked)
            raise UserError(
                [*problems, Problem(where=self.origin("kind"), field="kind", expected=expected, found=found)]
            )
        config, found = check(struct, self.anchored(), self.origin)
        problems += found
        if config is not None:
            problems += rules(config, self.origin)
        if problems:
            raise UserError(problems)
        return config

    def anchored(self) -> dict[str, Any]:
        """The data with absolute paths. What does not exist as a path is left as it is, for it may be a hub id."""
        return self._anchored(self.data, "")

    def _anchored(self, value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {key: self._anchored(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._anchored(item, f"{path}[{index}]") for index, item in enumerate(value)]
        if not isinstance(value, str) or not value or not _PATHS.fullmatch(path):
            return value
        # Path's own functions raise for a user that does not exist, and for a name that is too long for any file
        anchored = self._folders.get(self.origin(path), Path.cwd()) / os.path.expanduser(value)
        bases = ("model.", "request.base", "request.tuned")
        named = path.startswith(bases) and (value in EMBEDDED or not os.path.exists(anchored))
        return value if named else os.path.normpath(anchored)


def read_file(path: Path) -> dict[str, Any]:
    """The nested tables of a TOML, YAML or JSON file, told apart by the suffix."""
    formats = {".toml": _read_toml, ".json": json.loads, ".yaml": _read_yaml, ".yml": _read_yaml}
    reader = formats.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            Problem(where=str(path), expected="a .toml, .yaml or .json file", found=path.suffix or "no suffix")
        )
    try:
        data = _copy(reader(path.read_text(encoding="utf-8-sig")))
    except OSError as error:
        raise UserError(
            Problem(where=str(path), expected="a config file", found=error.strerror or str(error))
        ) from None
    except ValueError as error:
        kind = path.suffix[1:].upper()
        raise UserError(Problem(where=str(path), expected=f"well-formed {kind}", found=str(error))) from None
    except RecursionError:
        found = "tables nested without end"
        raise UserError(Problem(where=str(path), expected="a table of sections with fields", found=found)) from None
    if not isinstance(data, dict):
        raise UserError(Problem(where=str(path), expected="a table of fields", found=spell(data)))
    return data


def _read_toml(text: str) -> Any:
    return tomllib.loads(text)


def _read_yaml(text: str) -> Any:
    """YAML, with `1e-4` a number as YAML 1.2 has it (PyYAML follows 1.1 and reads text)."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    number = re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).replace(' in "<unicode string>"', "").split())) from None


def toml_value(text: str) -> Any:
    """What follows `=` in a `--set`: a TOML value where it is one, else the text itself. No field holds a date."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    alone = set(parsed) == {"value"} and not isinstance(parsed["value"], date | time)
    return parsed["value"] if alone else text


def _inside(field: str, place: str) -> bool:
    return field == place or field.startswith((f"{place}.", f"{place}["))


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
