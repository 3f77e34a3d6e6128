#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Count packets by IP protocol with BCC, on an interface that others use as well.

    python3 protocols.py INTERFACE

All that makes a BCC script a good neighbour is the line with xdpctl.attach, where others have
attach_xdp. A remove_xdp is not needed, and takes out this program alone.
"""

import sys

import bcc

import xdpctl
from xdpctl.errors import XdpctlError

TEXT = r"""
#include <uapi/linux/if_ether.h>
#include <uapi/linux/ip.h>
#include <uapi/linux/ipv6.h>

BPF_PERCPU_ARRAY(protocols, u64, 256);

int count(struct xdp_md *ctx)
{
    void *end = (void *)(long)ctx->data_end;
    struct ethhdr *eth = (void *)(long)ctx->data;
    struct iphdr *ip = (void *)(eth + 1);
    struct ipv6hdr *ip6 = (void *)(eth + 1);
    int protocol;

    if ((void *)(eth + 1) > end)
        return XDP_PASS;
    if (eth->h_proto == htons(ETH_P_IP) && (void *)(ip + 1) <= end)
        protocol = ip->protocol;
    else if (eth->h_proto == htons(ETH_P_IPV6) && (void *)(ip6 + 1) <= end)
        protocol = ip6->nexthdr;
    else
        return XDP_PASS;
    protocols.increment(protocol);
    return XDP_PASS;
}
"""


def main(interface: str) -> None:
    b = bcc.BPF(text=TEXT, cflags=["-w"])
    attachment = xdpctl.attach(b, interface, program="count", priority=1)
    protocols = b["protocols"]
    try:
        print("counting", flush=True)
        attachment.wait()
        print("somebody took the program out")
    except KeyboardInterrupt:
        pass
    for number in range(256):
        if packets := protocols.sum(number).value:
            print(f"protocol {number}: {packets} packets")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: protocols.py INTERFACE")
    try:
        main(sys.argv[1])
    except XdpctlError as error:
        sys.exit(f"protocols.py: {error}\n{error.why}".rstrip())
