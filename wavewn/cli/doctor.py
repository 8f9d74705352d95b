"""`wavewn doctor`: what works on this machine, what does not, and why."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wavewn.errors import WavewnError

if TYPE_CHECKING:
    from wavewn.doctor import Finding


def add_doctor(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Declare `wavewn doctor`."""
    verb = verbs.add_parser(
        "doctor",
        help="say what works on this machine and what does not",
        description="Look at versions, engines, CPU, GPU, compiler, disk and optional packages. "
        "The exit code is 0 unless wavewn cannot work here.",
    )
    verb.add_argument("--json", action="store_true", help="print the findings as JSON")
    verb.set_defaults(run=run_doctor)


def run_doctor(args: argparse.Namespace) -> None:
    """Run all checks and print what they found.

    Raises:
        WavewnError: wavewn cannot work here.
    """
    import dataclasses
    import json

    from wavewn import doctor

    findings = [finding for check in doctor.CHECKS for finding in check()]
    broken = [finding for finding in findings if finding.status == "broken"]
    if args.json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"works": not broken, "findings": rows}, indent=2, ensure_ascii=False))
    else:
        print(report(findings))
    if broken:
        names = ", ".join(finding.name for finding in broken)
        raise WavewnError(f"wavewn cannot work here because of {names}; {broken[0].advice}")


def report(findings: "Sequence[Finding]") -> str:
    """Write findings for people: a chapter for each group, a line for each finding."""
    width = max((len(finding.name) for finding in findings), default=0)
    lines: list[str] = []
    group = ""
    for finding in findings:
        if finding.group != group:
            lines += ["", finding.group] if lines else [finding.group]
            group = finding.group
        advice = f" -> {finding.advice}" if finding.advice else ""
        lines.append(
            f"  {finding.status:<6} {finding.name:<{width}}  {finding.detail}{advice}".rstrip()
        )
    return "\n".join(lines)
