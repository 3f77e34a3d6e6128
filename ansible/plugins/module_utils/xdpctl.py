# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only
"""Run xdpctl and read what it prints: all that the modules of this collection do besides."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

import json

PLACES = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"]
DIFFERS = 17
"""The exit code of `xdpctl apply --check` if something is not as the file says."""


def run(module, command, names, options=(), data=None, fine=(0,)):
    """The exit code and the JSON document of a command. Fails the module with its error.

    What is named is no option, whatever it is called.
    """
    program = module.params.get("executable") or module.get_bin_path("xdpctl", True, PLACES)
    words = [program, command, "--json"] + list(options)
    if module.params.get("netns"):
        words.append("--netns=" + module.params["netns"])
    code, out, err = module.run_command(words + ["--"] + list(names), data=data)
    try:
        document = json.loads(out)
    except ValueError:
        document = {}
    if code not in fine:
        module.fail_json(
            msg=_said(document) or err.strip() or "xdpctl ended with %d" % code,
            rc=code,
            stderr=err,
            chains=chains(document) if "error" not in document else [],
            changed=is_changed(document),
        )
    return code, document


def chains(document):
    """What a document says of each interface: one, or each of several."""
    return document.get("interfaces", [document] if "interface" in document else [])


def is_changed(document):
    """Whether a change of any interface changed what the kernel runs, or what is pinned."""
    done = [one for one in chains(document) if "plan" in one]
    return any(one["plan"]["flip"] != "none" or bool(one["removed"]) for one in done)


def _said(document):
    """The errors of a document, each in a line: what failed, why, and what to do."""
    found = [("", document["error"])] if "error" in document else []
    found += [(one["interface"] + ": ", one["error"]) for one in chains(document) if "error" in one]
    return "; ".join(name + _words(error) for name, error in found)


def _words(error):
    parts = [error.get("what"), error.get("why"), error.get("hint")]
    return ". ".join(part for part in parts if part)
