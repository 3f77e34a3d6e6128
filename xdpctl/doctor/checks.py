"""What the facts mean, all in all: a verdict on each, and one sentence. Data in, data out."""

from __future__ import annotations

from ..model.kinds import FIRST, TRAITS
from .check import Diagnosis
from .interface_checks import of_interface
from .kernel_checks import of_kernel, of_rights
from .machine_checks import of_machine, of_tools
from .probes import Machine


def examine(machine: Machine, *, named: bool) -> Diagnosis:
    """Judge the facts; `named` tells that it is about one interface, which has to be free."""
    checks = (*of_rights(machine), *of_kernel(machine), *of_machine(machine), *of_tools(machine))
    checks += tuple(check for nic in machine.nics for check in of_interface(machine, nic, named))
    blocked = any(check.exit_code for check in checks)
    kind = FIRST if machine.ext.works else TRAITS[FIRST].instead
    return Diagnosis(checks, None if blocked else kind)


def verdict(diagnosis: Diagnosis) -> str:
    """The sum of it in one sentence."""
    if diagnosis.kind is not None:
        return f"a chain can be run here, {TRAITS[diagnosis.kind].told}"
    first = next(check for check in diagnosis.checks if check.exit_code)
    where = f" of {first.interface}" if first.interface else ""
    return f"no chain can be run here: see {first.name}{where} (exit status {first.exit_code})"
