#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Sign an image with openssl, as cosign up to version 2 does: for where there is no cosign.

    python3 sign.py KEY.pem URL      # URL is https://HOST/NAME@sha256:DIGEST

The signature is an image of its own, beside the other: its layer is what was signed, which has the
digest in it, and the signature is an annotation of that layer.
"""

import base64
import hashlib
import json
import re
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"


def asked(method: str, url: str, data: bytes = b"", kind: str = "application/octet-stream") -> str:
    """Ask a registry; where it says that things go on."""
    request = urllib.request.Request(url, data, {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.headers.get("Location", ""))


def kept(repository: str, data: bytes, kind: str) -> dict[str, Any]:
    """Have a registry keep some bytes; a descriptor of them."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    begun = urllib.parse.urljoin(repository, asked("POST", f"{repository}/blobs/uploads/"))
    more = "&" if "?" in begun else "?"
    asked("PUT", f"{begun}{more}digest={urllib.parse.quote(digest)}", data)
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def sign(key: Path, repository: str, digest: str) -> None:
    """Sign what has this digest; the repository is https://HOST/v2/NAME."""
    critical = {
        "identity": {"docker-reference": ""},
        "image": {"docker-manifest-digest": digest},
        "type": "cosign container image signature",
    }
    payload = json.dumps({"critical": critical, "optional": None}).encode()
    command = ["openssl", "dgst", "-sha256", "-sign", str(key)]
    signature = subprocess.run(command, input=payload, stdout=subprocess.PIPE, check=True).stdout
    layer = kept(repository, payload, _PAYLOAD)
    layer["annotations"] = {_SIGNATURE: base64.b64encode(signature).decode()}
    history = {"rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": kept(repository, json.dumps(history).encode(), _CONFIG),
        "layers": [layer],
    }
    tag = digest.replace(":", "-") + ".sig"
    asked("PUT", f"{repository}/manifests/{tag}", json.dumps(manifest).encode(), _MANIFEST)


if __name__ == "__main__":
    words = sys.argv[1:]
    parts = re.fullmatch(r"(https?://[^/]+)/(.+)@(sha256:[0-9a-f]{64})", words[-1] if words else "")
    if len(words) != 2 or not parts:
        sys.exit("usage: sign.py KEY.pem https://HOST/NAME@sha256:DIGEST")
    try:
        sign(Path(words[0]), f"{parts[1]}/v2/{parts[2]}", parts[3])
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"sign.py: {error}")
