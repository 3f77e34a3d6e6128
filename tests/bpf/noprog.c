/* SPDX-License-Identifier: GPL-2.0-only */
/* Maps and no program. */
#include "common.h"

COUNTER(BPF_MAP_TYPE_ARRAY);
