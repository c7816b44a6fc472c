"""Look up every pinned dependency among known vulnerabilities: exit 1 if one is found.

Where no advisory database answers (offline, or behind a mirror without one) this is said, and no failure:
what cannot be asked cannot be wrong.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 300.0
SERVICES = ("pypi", "osv")


def main() -> int:
    """Ask the advisory databases in turn."""
    for service in SERVICES:
        command = [
            str(Path(sys.executable).with_name("uvx")), "--from", "pip-audit>=2.10", "pip-audit",
            "--no-deps", "--disable-pip", "--requirement", "constraints.txt",
            "--vulnerability-service", service, "--format", "json",
            "--progress-spinner", "off", "--timeout", "15",
        ]  # fmt: skip
        try:
            shown = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
            found = json.loads(shown.stdout)["dependencies"]
        except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
            print(f"{service}: no answer ({type(error).__name__})")
            continue
        audited = [entry for entry in found if "vulns" in entry]
        print(f"{service}: {len(audited)} of {len(found)} dependencies looked up")
        if audited:
            return report(audited)
    print("skipped: no advisory database answers here")
    return 0


def report(audited: list[dict[str, object]]) -> int:
    """Print what is known of each; 1 if anything is."""
    bad = [entry for entry in audited if entry["vulns"]]
    for entry in bad:
        print(f"{entry['name']} {entry['version']}: {json.dumps(entry['vulns'])}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
