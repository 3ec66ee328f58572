"""What a base is, as one line of JSON: `python -m engine.resolve BASE`. Reads configs and headers, loads nothing.

`{"facts": {…}}`, or `{"problems": […]}` and exit code 2.
"""

from __future__ import annotations

import sys
from dataclasses import asdict

import msgspec

from engine.errors import UserError


def main() -> int:
    from engine.models.resolve import resolve_base

    try:
        facts = resolve_base(sys.argv[1])
    except UserError as error:
        print(msgspec.json.encode({"problems": error.problems}).decode())
        return 2
    print(msgspec.json.encode({"facts": asdict(facts) | {"path": str(facts.path)}}).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
