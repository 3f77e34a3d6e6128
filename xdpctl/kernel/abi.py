"""The binary interface: structures of the kernel and of libbpf, and libbpf's prototypes.

They follow <linux/bpf.h> and <bpf/bpf.h> of libbpf 1.1; the kernel and libbpf both take shorter
structures than they know. tests/unit/test_libbpf.py compares them with the headers.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import Any


class _Opts(ctypes.Structure):
    """A libbpf options structure: its first member is its own size."""

    def __init__(self, **values: Any) -> None:
        super().__init__(ctypes.sizeof(self), **values)


class ObjectOpenOpts(_Opts):
    _fields_ = [
        ("sz", c_size_t),
        ("object_name", c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("pin_root_path", c_char_p),
    ]


class MapCreateOpts(_Opts):
    _fields_ = [
        ("sz", c_size_t),
        ("btf_fd", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("inner_map_fd", c_uint32),
        ("map_flags", c_uint32),
    ]


class ProgLoadOpts(_Opts):
    _fields_ = [
        ("sz", c_size_t),
        ("attempts", c_int),
        ("expected_attach_type", c_int),
        ("prog_btf_fd", c_uint32),
        ("prog_flags", c_uint32),
        ("prog_ifindex", c_uint32),
        ("kern_version", c_uint32),
        ("attach_btf_id", c_uint32),
        ("attach_prog_fd", c_uint32),
        ("attach_btf_obj_fd", c_uint32),
        ("fd_array", c_void_p),
        ("func_info", c_void_p),
        ("func_info_cnt", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("line_info", c_void_p),
        ("line_info_cnt", c_uint32),
        ("line_info_rec_size", c_uint32),
        ("log_level", c_uint32),
        ("log_size", c_uint32),
        ("log_buf", c_void_p),
    ]


class LinkCreateOpts(_Opts):
    _fields_ = [
        ("sz", c_size_t),
        ("flags", c_uint32),
        ("iter_info", c_void_p),
        ("iter_info_len", c_uint32),
        ("target_btf_id", c_uint32),
    ]


class LinkUpdateOpts(_Opts):
    _fields_ = [("sz", c_size_t), ("flags", c_uint32), ("old_prog_fd", c_uint32)]


class XdpAttachOpts(_Opts):
    _fields_ = [("sz", c_size_t), ("old_prog_fd", c_int), ("_pad", c_int)]


class XdpQueryOpts(_Opts):
    _fields_ = [
        ("sz", c_size_t),
        ("prog_id", c_uint32),
        ("drv_prog_id", c_uint32),
        ("hw_prog_id", c_uint32),
        ("skb_prog_id", c_uint32),
        ("attach_mode", ctypes.c_uint8),
        ("_pad", ctypes.c_uint8 * 7),
    ]


class TestRunOpts(_Opts):
    _fields_ = [
        ("sz", c_size_t),
        ("data_in", c_void_p),
        ("data_out", c_void_p),
        ("data_size_in", c_uint32),
        ("data_size_out", c_uint32),
        ("ctx_in", c_void_p),
        ("ctx_out", c_void_p),
        ("ctx_size_in", c_uint32),
        ("ctx_size_out", c_uint32),
        ("retval", c_uint32),
        ("repeat", c_int),
        ("duration", c_uint32),
        ("flags", c_uint32),
        ("cpu", c_uint32),
        ("batch_size", c_uint32),
    ]


class BpfProgInfo(ctypes.Structure):
    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", c_uint32),
        ("xlated_prog_len", c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", c_uint32),
        ("nr_map_ids", c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", c_char * 16),
        ("ifindex", c_uint32),
        ("gpl_compatible", c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("nr_jited_ksyms", c_uint32),
        ("nr_jited_func_lens", c_uint32),
        ("jited_ksyms", ctypes.c_uint64),
        ("jited_func_lens", ctypes.c_uint64),
        ("btf_id", c_uint32),
        ("func_info_rec_size", c_uint32),
        ("func_info", ctypes.c_uint64),
        ("nr_func_info", c_uint32),
        ("_pad", c_uint32),
    ]


class BpfLinkInfo(ctypes.Structure):
    # The union of <linux/bpf.h>: the three words of `tracing`; `xdp.ifindex` is the first of them.
    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("prog_id", c_uint32),
        ("_pad", c_uint32),
        ("word", c_uint32 * 4),
    ]


class BpfMapInfo(ctypes.Structure):
    _fields_ = [
        ("type", c_uint32),
        ("id", c_uint32),
        ("key_size", c_uint32),
        ("value_size", c_uint32),
        ("max_entries", c_uint32),
        ("map_flags", c_uint32),
        ("name", c_char * 16),
        ("ifindex", c_uint32),
        ("btf_vmlinux_value_type_id", c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("btf_id", c_uint32),
        ("btf_key_type_id", c_uint32),
        ("btf_value_type_id", c_uint32),
        ("_pad", c_uint32),
    ]


class XdpMd(ctypes.Structure):
    """The context of a test run; `data` is there the length of the metadata before the packet."""

    _fields_ = [
        ("data", c_uint32),
        ("data_end", c_uint32),
        ("data_meta", c_uint32),
        ("ingress_ifindex", c_uint32),
        ("rx_queue_index", c_uint32),
        ("egress_ifindex", c_uint32),
    ]


class BtfType(ctypes.Structure):
    """The head of a BTF type record; the kind's own records follow it in memory."""

    _fields_ = [("name_off", c_uint32), ("info", c_uint32), ("size_or_type", c_uint32)]

    @property
    def kind(self) -> int:
        return int(self.info) >> 24 & 0x1F

    @property
    def vlen(self) -> int:
        return int(self.info) & 0xFFFF


PRINT_FN = ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_void_p)
SAMPLE_FN = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_void_p, c_uint32)
LOST_FN = ctypes.CFUNCTYPE(None, c_void_p, c_int, ctypes.c_uint64)

# name: (result, arguments). An int result below zero is a negated errno, a pointer result of NULL
# leaves it in errno.
PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "libbpf_bpf_map_type_str": (c_char_p, [c_int]),
    "libbpf_version_string": (c_char_p, []),
    "libbpf_set_print": (c_void_p, [PRINT_FN]),
    "libbpf_num_possible_cpus": (c_int, []),
    "bpf_object__open_mem": (c_void_p, [c_void_p, c_size_t, POINTER(ObjectOpenOpts)]),
    "bpf_object__close": (None, [c_void_p]),
    "bpf_object__load": (c_int, [c_void_p]),
    "bpf_object__btf": (c_void_p, [c_void_p]),
    "bpf_object__next_program": (c_void_p, [c_void_p, c_void_p]),
    "bpf_object__next_map": (c_void_p, [c_void_p, c_void_p]),
    "bpf_program__name": (c_char_p, [c_void_p]),
    "bpf_program__section_name": (c_char_p, [c_void_p]),
    "bpf_program__type": (c_int, [c_void_p]),
    "bpf_program__expected_attach_type": (c_int, [c_void_p]),
    "bpf_program__insn_cnt": (c_size_t, [c_void_p]),
    "bpf_program__insns": (c_void_p, [c_void_p]),
    "bpf_program__fd": (c_int, [c_void_p]),
    "bpf_program__set_type": (c_int, [c_void_p, c_int]),
    "bpf_program__set_expected_attach_type": (c_int, [c_void_p, c_int]),
    "bpf_program__set_attach_target": (c_int, [c_void_p, c_int, c_char_p]),
    "bpf_program__set_autoload": (c_int, [c_void_p, ctypes.c_bool]),
    "bpf_program__set_flags": (c_int, [c_void_p, c_uint32]),
    "bpf_program__set_ifindex": (None, [c_void_p, c_uint32]),
    "bpf_program__set_log_buf": (c_int, [c_void_p, c_void_p, c_size_t]),
    "bpf_map__name": (c_char_p, [c_void_p]),
    "bpf_map__fd": (c_int, [c_void_p]),
    "bpf_map__set_ifindex": (c_int, [c_void_p, c_uint32]),
    "bpf_map__type": (c_int, [c_void_p]),
    "bpf_map__key_size": (c_uint32, [c_void_p]),
    "bpf_map__value_size": (c_uint32, [c_void_p]),
    "bpf_map__max_entries": (c_uint32, [c_void_p]),
    "bpf_map__map_flags": (c_uint32, [c_void_p]),
    "bpf_map__inner_map": (c_void_p, [c_void_p]),
    "bpf_map__reuse_fd": (c_int, [c_void_p, c_int]),
    "bpf_map__pin_path": (c_char_p, [c_void_p]),
    "bpf_map__set_pin_path": (c_int, [c_void_p, c_char_p]),
    "bpf_map__initial_value": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "bpf_map__set_max_entries": (c_int, [c_void_p, c_uint32]),
    "bpf_map__set_initial_value": (c_int, [c_void_p, c_void_p, c_size_t]),
    "btf__new": (c_void_p, [c_void_p, c_uint32]),
    "btf__new_empty": (c_void_p, []),
    "btf__raw_data": (c_void_p, [c_void_p, POINTER(c_uint32)]),
    "btf__add_array": (c_int, [c_void_p, c_int, c_int, c_uint32]),
    "btf__add_var": (c_int, [c_void_p, c_char_p, c_int, c_int]),
    "btf__add_datasec": (c_int, [c_void_p, c_char_p, c_uint32]),
    "btf__add_datasec_var_info": (c_int, [c_void_p, c_int, c_uint32, c_uint32]),
    "btf__add_int": (c_int, [c_void_p, c_char_p, c_size_t, c_int]),
    "btf__add_ptr": (c_int, [c_void_p, c_int]),
    "btf__add_struct": (c_int, [c_void_p, c_char_p, c_uint32]),
    "btf__add_field": (c_int, [c_void_p, c_char_p, c_int, c_uint32, c_uint32]),
    "btf__add_func": (c_int, [c_void_p, c_char_p, c_int, c_int]),
    "btf__add_func_proto": (c_int, [c_void_p, c_int]),
    "btf__add_func_param": (c_int, [c_void_p, c_char_p, c_int]),
    "btf__load_into_kernel": (c_int, [c_void_p]),
    "btf__fd": (c_int, [c_void_p]),
    "btf__load_from_kernel_by_id": (c_void_p, [c_uint32]),
    "btf__load_vmlinux_btf": (c_void_p, []),
    "btf__free": (None, [c_void_p]),
    "btf__type_cnt": (c_uint32, [c_void_p]),
    "btf__type_by_id": (POINTER(BtfType), [c_void_p, c_uint32]),
    "btf__name_by_offset": (c_char_p, [c_void_p, c_uint32]),
    "btf_dump__new": (c_void_p, [c_void_p, c_void_p, c_void_p, c_void_p]),
    "btf_dump__dump_type": (c_int, [c_void_p, c_uint32]),
    "btf_dump__free": (None, [c_void_p]),
    "btf__find_by_name_kind": (c_int, [c_void_p, c_char_p, c_uint32]),
    "bpf_link_get_next_id": (c_int, [c_uint32, POINTER(c_uint32)]),
    "bpf_prog_get_next_id": (c_int, [c_uint32, POINTER(c_uint32)]),
    "bpf_prog_get_fd_by_id": (c_int, [c_uint32]),
    "bpf_link_get_fd_by_id": (c_int, [c_uint32]),
    "bpf_map_get_fd_by_id": (c_int, [c_uint32]),
    "bpf_map_get_next_id": (c_int, [c_uint32, POINTER(c_uint32)]),
    "bpf_btf_get_fd_by_id": (c_int, [c_uint32]),
    "bpf_obj_get_info_by_fd": (c_int, [c_int, c_void_p, POINTER(c_uint32)]),
    "bpf_obj_pin": (c_int, [c_int, c_char_p]),
    "bpf_obj_get": (c_int, [c_char_p]),
    "bpf_map_create": (
        c_int,
        [c_int, c_char_p, c_uint32, c_uint32, c_uint32, POINTER(MapCreateOpts)],
    ),
    "bpf_map_lookup_elem": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_update_elem": (c_int, [c_int, c_void_p, c_void_p, ctypes.c_uint64]),
    "bpf_map_delete_elem": (c_int, [c_int, c_void_p]),
    "bpf_map_get_next_key": (c_int, [c_int, c_void_p, c_void_p]),
    "bpf_map_lookup_batch": (
        c_int,
        [c_int, c_void_p, c_void_p, c_void_p, c_void_p, POINTER(c_uint32), c_void_p],
    ),
    "bpf_map_update_batch": (
        c_int,
        [c_int, c_void_p, c_void_p, POINTER(c_uint32), c_void_p],
    ),
    "bpf_map_freeze": (c_int, [c_int]),
    "bpf_prog_bind_map": (c_int, [c_int, c_int, c_void_p]),
    "bpf_prog_load": (
        c_int,
        [c_int, c_char_p, c_char_p, c_char_p, c_size_t, POINTER(ProgLoadOpts)],
    ),
    "bpf_link_create": (c_int, [c_int, c_int, c_int, POINTER(LinkCreateOpts)]),
    "bpf_raw_tracepoint_open": (c_int, [c_char_p, c_int]),
    "bpf_link_update": (c_int, [c_int, c_int, POINTER(LinkUpdateOpts)]),
    "bpf_link_detach": (c_int, [c_int]),
    "bpf_xdp_attach": (c_int, [c_int, c_int, c_uint32, POINTER(XdpAttachOpts)]),
    "bpf_xdp_detach": (c_int, [c_int, c_uint32, POINTER(XdpAttachOpts)]),
    "bpf_xdp_query": (c_int, [c_int, c_int, POINTER(XdpQueryOpts)]),
    "perf_buffer__new": (
        c_void_p,
        [c_int, c_size_t, SAMPLE_FN, LOST_FN, c_void_p, c_void_p],
    ),
    "perf_buffer__consume": (c_int, [c_void_p]),
    "perf_buffer__epoll_fd": (c_int, [c_void_p]),
    "perf_buffer__free": (None, [c_void_p]),
    "bpf_prog_test_run_opts": (c_int, [c_int, POINTER(TestRunOpts)]),
}
