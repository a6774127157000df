"""Print the lowest version that pyproject.toml allows of each dependency, for this Python, as constraints for pip.

    python scripts/lowest_versions.py [--except torch] > lowest.txt

Extras are included. `--except` leaves packages out, for which pip then takes the newest, or what other constraints say.
"""

import argparse
from pathlib import Path

from packaging.requirements import Requirement

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

ROOT = Path(__file__).parent.parent
TOOLS = "dev"  # the extra of what tests are run with, which is nobody's dependency


def lowest(requirements: list[Requirement]) -> dict[str, str]:
    """Return the greatest of the lower bounds of each package."""
    found: dict[str, str] = {}
    for requirement in requirements:
        for bound in requirement.specifier:
            if bound.operator == ">=":
                before = found.get(requirement.name)
                numbers = [int(part) for part in bound.version.split(".")]
                if before is None or [int(part) for part in before.split(".")] < numbers:
                    found[requirement.name] = bound.version
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--except", dest="left_out", nargs="*", default=[])
    arguments = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    lines = list(project["dependencies"])
    for extra, requirements in project["optional-dependencies"].items():
        if extra != TOOLS:
            lines += requirements
    requirements = [Requirement(line) for line in lines]
    applying = [r for r in requirements if r.marker is None or r.marker.evaluate()]
    for name, version in sorted(lowest(applying).items()):
        if name not in arguments.left_out:
            print(f"{name}=={version}")


if __name__ == "__main__":
    main()
