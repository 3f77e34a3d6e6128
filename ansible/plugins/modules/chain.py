#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
---
module: chain
short_description: Bring network interfaces to a chain of XDP programs
version_added: 0.1.0
description:
  - Brings an interface, or all that a pattern matches, to a chain of XDP programs with C(xdpctl apply).
  - It is one change, which loses no packet. If something is refused, the interface runs what it ran before.
  - Programs that run already, from the same bytes and set up in the same way, are left alone.
author:
  - xdpctl maintainers (@xdpctl)
requirements:
  - xdpctl on the host
  - root on the host
options:
  interface:
    description:
      - The interface, by its name; or several, by a pattern such as V(eth*) or a list such as V(eth0,br*).
    type: str
    required: true
  state:
    description:
      - V(present) makes the chain that O(programs) or O(file) describes.
      - V(absent) takes all programs out.
      - V(confirmed) keeps a change that was made with O(confirm_within). It fails if the change has
        gone back, and says when and why.
    type: str
    choices: [present, absent, confirmed]
    default: present
  programs:
    description:
      - The programs of the chain, with the keys of a chain file. See xdpctl-chain(5) for what they mean.
      - An empty list leaves an empty root.
    type: list
    elements: dict
    suboptions:
      file:
        description: The object file or C source on the host, or an image as C(oci://HOST/NAME:TAG).
        type: str
        required: true
      section:
        description: The section of the object that the program is in.
        type: str
      prog_name:
        description: The program of the object.
        type: str
        aliases: [prog-name]
      prio:
        description: The priority. Lower ones run first.
        type: int
      actions:
        description: The verdicts at which the next program runs. An empty list means none.
        type: list
        elements: str
      name:
        description: The label of the program.
        type: str
      before:
        description: Programs that have to run after this one.
        type: list
        elements: str
      after:
        description: Programs that have to run before this one.
        type: list
        elements: str
      maps:
        description: What becomes of the maps of a program whose place this one takes.
        type: list
        elements: str
      pin_path:
        description: Where maps are pinned that ask for it.
        type: str
        aliases: [pin-path]
      include:
        description: Directories of headers, for a C source.
        type: list
        elements: str
      define:
        description: Macros, for a C source.
        type: list
        elements: str
      bcc:
        description: Whether a C source is in BCC's dialect.
        type: bool
      constants:
        description: Values of global constants of the program.
        type: dict
      entries:
        description: How many entries maps of the program have.
        type: dict
      tail:
        description: Programs that go into program arrays.
        type: dict
      verify_key:
        description: Files of public keys on the host, by one of which the program has to be signed.
        type: list
        elements: str
        aliases: [verify-key]
  file:
    description: A chain file on the host, in place of O(programs).
    type: path
  mode:
    description: How a first root is attached.
    type: str
    choices: [native, skb, unspecified]
  attach:
    description: By what a first root is attached.
    type: str
    choices: [link, netlink]
  root:
    description: The kind of a root.
    type: str
    choices: [ext, fused, auto]
  protocol:
    description: The protocol of libxdp that a dispatcher has.
    type: int
  on_end:
    description: What becomes of packets that go past the last program.
    type: str
    choices: [pass, drop, aborted]
    aliases: [on-end]
  on_vacant:
    description: What becomes of packets at a slot whose program is gone.
    type: str
    choices: [pass, drop]
    aliases: [on-vacant]
  shared:
    description: Whether the interfaces are to run one root with one set of programs and maps.
    type: bool
  netns:
    description: The network namespace on the host that the interfaces are in, by its name or path.
    type: str
  confirm_within:
    description:
      - Seconds within which the change has to be confirmed, with O(state=confirmed). Else it goes back by itself.
      - Notify a handler that does so. It runs only if the host can still be reached.
    type: float
  must_pass:
    description: A file of packets on the host (pcap), each of which the new chain has to let through. Else nothing is changed.
    type: path
  executable:
    description: The path of xdpctl on the host. Without it, it is looked for.
    type: path
attributes:
  check_mode:
    support: full
    description: Tells what would change, with C(xdpctl apply --check).
  diff_mode:
    support: full
    description: Shows the programs before and after.
  platform:
    support: full
    platforms: linux
    description: Linux 5.10 and later.
seealso:
  - module: xdpctl.xdp.chain_info
"""

EXAMPLES = r"""
- name: A firewall behind a counter
  xdpctl.xdp.chain:
    interface: eth0
    on_vacant: drop
    programs:
      - file: /usr/lib/bpf/counter.o
        before: [firewall]
      - file: /usr/lib/bpf/firewall.o
        prio: 10

- name: What a file of the host says, for all uplinks
  xdpctl.xdp.chain:
    interface: "enp*"
    file: /etc/xdpctl/uplinks.toml

- name: A change that goes back if the host cannot be reached afterwards
  xdpctl.xdp.chain:
    interface: eth0
    file: /etc/xdpctl/eth0.toml
    confirm_within: 30
  notify: Confirm the chain

# among the handlers, behind ansible.builtin.wait_for_connection
- name: Confirm the chain
  xdpctl.xdp.chain:
    interface: eth0
    state: confirmed

- name: No programs at all
  xdpctl.xdp.chain:
    interface: eth0
    state: absent
"""

RETURN = r"""
chains:
  description: What C(xdpctl --json) says of each interface. See xdpctl-json(5).
  returned: always
  type: list
  elements: dict
unconfirmed:
  description: The interfaces whose change waits for its confirmation.
  returned: success
  type: list
  elements: str
rc:
  description: The exit code of xdpctl.
  returned: failure
  type: int
"""

import json

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xdpctl.xdp.plugins.module_utils import xdpctl

LISTS = ("actions", "before", "after", "maps", "include", "define")
PROGRAM = dict(
    file=dict(type="str", required=True),
    section=dict(type="str"),
    prog_name=dict(type="str", aliases=["prog-name"]),
    prio=dict(type="int"),
    name=dict(type="str"),
    pin_path=dict(type="str", aliases=["pin-path"]),
    bcc=dict(type="bool"),
    constants=dict(type="dict"),
    entries=dict(type="dict"),
    tail=dict(type="dict"),
    verify_key=dict(type="list", elements="str", aliases=["verify-key"], no_log=False),
    **dict((name, dict(type="list", elements="str")) for name in LISTS),
)
INTERFACE = dict(
    mode=dict(type="str", choices=["native", "skb", "unspecified"]),
    attach=dict(type="str", choices=["link", "netlink"]),
    root=dict(type="str", choices=["ext", "fused", "auto"]),
    protocol=dict(type="int"),
    on_end=dict(type="str", choices=["pass", "drop", "aborted"], aliases=["on-end"]),
    on_vacant=dict(type="str", choices=["pass", "drop"], aliases=["on-vacant"]),
    shared=dict(type="bool"),
)
ALIASES = ("on-end", "on-vacant", "prog-name", "pin-path", "verify-key")
SHOWN = ("id", "name", "label", "priority", "actions", "before", "after")


def toml(value):
    """A value as TOML; a JSON string, number, boolean or array is one as well."""
    if isinstance(value, dict):
        pairs = ["%s = %s" % (toml(str(key)), toml(one)) for key, one in value.items()]
        return "{ %s }" % ", ".join(pairs)
    if isinstance(value, (list, tuple)):
        return "[%s]" % ", ".join(toml(one) for one in value)
    # Not every escape of JSON's is one of TOML's; and TOML takes all characters as they are but this.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def table(values, keys):
    """Some keys of a table, a line each, without those that say nothing."""
    found = [(key, values.get(key)) for key in keys if key not in ALIASES]
    return ["%s = %s" % (key.replace("_", "-"), toml(one)) for key, one in found if one is not None]


def written(params):
    """The parameters as a chain file."""
    lines = table(params, sorted(INTERFACE))
    if not params["programs"]:
        lines.append("program = []")
    for program in params["programs"]:
        lines += ["[[program]]"] + table(program, sorted(PROGRAM))
    return "\n".join(lines) + "\n"


def given(params):
    """Whether anything says what the chain is to be."""
    return [key for key in INTERFACE if params[key] is not None]


def present(module):
    params = module.params
    if params["file"] and given(params):
        module.fail_json(msg="the file says these itself: %s" % ", ".join(sorted(given(params))))
    options = []
    if params["confirm_within"] and not module.check_mode:
        options.append("--confirm-within=%s" % params["confirm_within"])
    if params["must_pass"]:
        options.append("--must-pass=%s" % params["must_pass"])
    if module.check_mode:
        options.append("--check")
    names = [params["interface"], params["file"] or "-"]
    data = None if params["file"] else written(params)
    return xdpctl.run(module, "apply", names, options, data, fine=(0, xdpctl.DIFFERS))


def absent(module):
    names = [module.params["interface"]]
    code, document = xdpctl.run(module, "status", names)
    if not any(one.get("root") for one in xdpctl.chains(document)):
        return code, {}
    return xdpctl.run(module, "unload", names, ["--all"] + ["--dry-run"] * module.check_mode)


def confirmed(module):
    options = ["--dry-run"] * module.check_mode
    return xdpctl.run(module, "confirm", [module.params["interface"]], options)


def diff_of(chains):
    """The programs of each interface, before and after."""
    return [
        dict(
            before_header=chain["interface"],
            after_header=chain["interface"],
            before=shown(chain["plan"]["current"]),
            after=shown(chain["plan"]["target"]),
        )
        for chain in chains
    ]


def shown(programs):
    lines = [
        "%s: %s" % (key, json.dumps(program[key])) if key != SHOWN[0] else "- id: %s" % program[key]
        for program in programs
        for key in SHOWN
    ]
    return "".join("%s\n" % (line if line.startswith("-") else "  " + line) for line in lines)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            interface=dict(type="str", required=True),
            state=dict(type="str", choices=["present", "absent", "confirmed"], default="present"),
            programs=dict(type="list", elements="dict", options=PROGRAM),
            file=dict(type="path"),
            confirm_within=dict(type="float"),
            netns=dict(type="str"),
            must_pass=dict(type="path", no_log=False),
            executable=dict(type="path"),
            **INTERFACE,
        ),
        mutually_exclusive=[("programs", "file")],
        required_if=[("state", "present", ("programs", "file"), True)],
        supports_check_mode=True,
    )
    state = module.params["state"]
    _code, document = dict(present=present, absent=absent, confirmed=confirmed)[state](module)
    chains = xdpctl.chains(document)
    result = dict(chains=chains, unconfirmed=[], changed=state == "confirmed")
    if state != "confirmed":
        result["changed"] = xdpctl.is_changed(document)
        result["unconfirmed"] = [one["interface"] for one in chains if one.get("unconfirmed")]
        result["diff"] = diff_of(chains)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
