#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
---
module: chain_info
short_description: Tell which XDP programs network interfaces run
version_added: 0.1.0
description:
  - Tells what interfaces run, and the chains that they ran before, with C(xdpctl status) and C(xdpctl history).
author:
  - xdpctl maintainers (@xdpctl)
requirements:
  - xdpctl on the host
  - root on the host
options:
  interface:
    description:
      - The interface, by its name; or several, by a pattern or a list. Without it, all.
    type: str
    default: "*"
  history:
    description: Whether the chains that ran before are told as well.
    type: bool
    default: false
  netns:
    description: The network namespace on the host that the interfaces are in, by its name or path.
    type: str
  executable:
    description: The path of xdpctl on the host. Without it, it is looked for.
    type: path
attributes:
  check_mode:
    support: full
    description: It changes nothing.
  diff_mode:
    support: none
    description: It changes nothing.
  platform:
    support: full
    platforms: linux
    description: Linux 5.10 and later.
seealso:
  - module: xdpctl.xdp.chain
"""

EXAMPLES = r"""
- name: What runs on eth0
  xdpctl.xdp.chain_info:
    interface: eth0
  register: eth0

- name: No slot is vacant
  ansible.builtin.assert:
    that: eth0.chains[0].programs | selectattr('vacant') | length == 0
"""

RETURN = r"""
chains:
  description: What C(xdpctl status --json) says of each interface. See xdpctl-json(5).
  returned: success
  type: list
  elements: dict
history:
  description: What C(xdpctl history --json) says of each interface.
  returned: if O(history) is asked for
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xdpctl.xdp.plugins.module_utils import xdpctl


def main():
    module = AnsibleModule(
        argument_spec=dict(
            interface=dict(type="str", default="*"),
            history=dict(type="bool", default=False),
            netns=dict(type="str"),
            executable=dict(type="path"),
        ),
        supports_check_mode=True,
    )
    names = [module.params["interface"]]
    result = dict(chains=xdpctl.chains(xdpctl.run(module, "status", names)[1]))
    if module.params["history"]:
        result["history"] = xdpctl.chains(xdpctl.run(module, "history", names)[1])
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
