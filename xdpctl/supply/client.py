"""Talking to a registry over HTTP, with `requests`; in a child process alone (images.py).

What a registry says is read up to a limit, and believed if it has the digest that it should have.
It speaks TLS unless it is on this machine. Redirects are followed for content that has a digest,
never to plain HTTP, and never with a login.

Source: the OCI distribution specification 1.1, and Docker's on tokens.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit

import requests
import requests.utils

from ..errors import NotFoundError, RegistryError
from . import credentials, manifest
from .manifest import Descriptor, wrong
from .reference import HUB, Reference, digest_of

_WAIT = 10.0
"""Seconds that a registry may take to connect, and between two pieces of an answer."""
_TOKEN_LIMIT = 1 << 20
_REDIRECTS = 5
_PIECE = 1 << 16
_KINDS = ", ".join(
    (manifest.MANIFEST, manifest.INDEX, manifest.DOCKER_MANIFEST, manifest.DOCKER_INDEX)
)
_CERTIFICATES = ("/etc/containers/certs.d", "/etc/docker/certs.d")
"""Where container tools look for the certificates of single registries."""
_HUB_HOST = "registry-1.docker.io"
_NOISE = re.compile(r"'?<[^>]*object at[^>]*>'?[:,]? ?|HTTPS?Connection\w*\([^)]*\): ")
"""What the libraries' errors say of objects of theirs."""


class Answer(NamedTuple):
    """What a registry has under a name: its bytes and their digest."""

    data: bytes
    digest: str


class Registry:
    """The registry of an image. Each method raises RegistryError, and NotFoundError for nothing."""

    def __init__(self, image: Reference, actions: str = "pull") -> None:
        self.image = image
        hub = image.host == HUB
        scheme = "http" if image.is_local else "https"
        self.root = f"{scheme}://{_HUB_HOST if hub else image.host}"
        self.name = image.repository
        self._scope = f"repository:{self.name}:{actions}"
        self._session = requests.Session()
        # Nothing of the environment: a .netrc would send logins, a proxy see what is local.
        self._session.trust_env = False
        self._session.verify = _certificates(image.host)
        self._authorization = ""

    # --- reading --------------------------------------------------------------------------------

    def manifest(self, wanted: str) -> Answer:
        """A manifest by its tag or its digest."""
        url = f"{self.root}/v2/{self.name}/manifests/{wanted}"
        with self._asked("GET", url, headers={"Accept": _KINDS}, moves=False) as answer:
            data = self._read(answer, manifest.LIMIT)
            told = answer.headers.get("Docker-Content-Digest")
        digest = digest_of(data)
        if digest != wanted and wanted.startswith("sha256:"):
            raise self._lies(f"asked for {wanted}, it gives what has {digest}")
        if told is not None and told != digest and told.startswith("sha256:"):
            raise self._lies(f"it calls what has {digest} {told}")
        return Answer(data, digest)

    def blob(self, wanted: Descriptor) -> bytes:
        """What a descriptor is of, whole."""
        url = f"{self.root}/v2/{self.name}/blobs/{wanted.digest}"
        with self._asked("GET", url) as answer:
            data = self._read(answer, wanted.size)
        if len(data) != wanted.size:
            raise self._lies(f"{wanted.digest} is to have {wanted.size} bytes, and has {len(data)}")
        if digest_of(data) != wanted.digest:
            raise self._lies(f"asked for {wanted.digest}, it gives what has {digest_of(data)}")
        return data

    def referrers(self, digest: str) -> Answer:
        """The index of what refers to a manifest; of older registries by a tag."""
        url = f"{self.root}/v2/{self.name}/referrers/{digest}"
        with contextlib.suppress(NotFoundError):
            with self._asked("GET", url, headers={"Accept": manifest.INDEX}, moves=False) as answer:
                data = self._read(answer, manifest.LIMIT)
            return Answer(data, digest_of(data))
        return self.manifest(digest.replace(":", "-"))

    # --- writing --------------------------------------------------------------------------------

    def put_blob(self, data: bytes) -> None:
        """Have the registry keep some bytes, unless it does already."""
        digest, base = digest_of(data), f"{self.root}/v2/{self.name}/blobs"
        with contextlib.suppress(NotFoundError), self._asked("HEAD", f"{base}/{digest}"):
            return
        with self._asked("POST", f"{base}/uploads/", moves=False) as answer:
            place = urljoin(answer.url, answer.headers.get("Location", ""))
        if urlsplit(place)[:2] != urlsplit(self.root)[:2]:
            raise self._lies("it sends an upload to another host")
        place += f"{'&' if urlsplit(place).query else '?'}{urlencode({'digest': digest})}"
        headers = {"Content-Type": "application/octet-stream"}
        with self._asked("PUT", place, headers=headers, data=data, moves=False):
            pass

    def put_manifest(self, data: bytes, wanted: str) -> None:
        """Have a tag or a digest mean a manifest."""
        url = f"{self.root}/v2/{self.name}/manifests/{wanted}"
        headers = {"Content-Type": manifest.MANIFEST}
        with self._asked("PUT", url, headers=headers, data=data, moves=False):
            pass

    # --- requests -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _asked(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        moves: bool = True,
    ) -> Iterator[requests.Response]:
        """An answer that is not read yet; redirects are followed if it `moves`."""
        with self._failing():
            answer = self._send(method, url, headers, data)
            if answer.status_code == 401 and self._log_in(answer):
                answer.close()
                answer = self._send(method, url, headers, data)
            for _number in range(_REDIRECTS if moves else 0):
                if not answer.is_redirect:
                    break
                url = self._redirected(answer)
                answer.close()
                answer = self._send(method, url, headers, data)
            with answer:
                self._check(answer)
                yield answer

    def _send(
        self, method: str, url: str, headers: Mapping[str, str] | None, data: bytes | None
    ) -> requests.Response:
        # Compressed answers would have another size than the one that is announced.
        words = {"Accept-Encoding": "identity", "User-Agent": "xdpctl", **(headers or {})}
        if self._authorization and urlsplit(url)[:2] == urlsplit(self.root)[:2]:
            words["Authorization"] = self._authorization
        local = self.image.is_local
        return self._session.request(
            method,
            url,
            headers=words,
            data=data,
            stream=True,
            allow_redirects=False,
            timeout=_WAIT,
            proxies={} if local else requests.utils.get_environ_proxies(url),
        )

    def _redirected(self, answer: requests.Response) -> str:
        url = urljoin(answer.url, answer.headers["Location"])
        here, there = urlsplit(self.root), urlsplit(url)
        if there[:2] != here[:2] and there.scheme != "https":
            raise self._lies(f"it sends one on to {there.scheme}://{there.netloc}, without TLS")
        return url

    def _check(self, answer: requests.Response) -> None:
        """Raise an error for an answer that is none."""
        code = answer.status_code
        if code == 404:
            raise NotFoundError(
                f"no image {self.image}",
                why=f"{self.image.host} has nothing of this name",
                hint="check its name and its tag; some registries say so if a login is missing",
            )
        if code in (401, 403):
            raise RegistryError(
                f"{self.image.host} refuses {self.image}",
                why=f"it answers {code}, {'with' if self._authorization else 'without'} a login",
                hint="podman login, docker login and oras login write files in which logins are "
                "looked for; REGISTRY_AUTH_FILE names another one",
            )
        if answer.is_redirect:
            raise self._lies("it sends one on to elsewhere, where it has to answer itself")
        if not 200 <= code < 300:
            raise RegistryError(
                f"{self.image.host} does not give {self.image}",
                why=f"it answers {code}",
                hint="try again later" if code == 429 or code >= 500 else "",
            )

    def _read(self, answer: requests.Response, limit: int) -> bytes:
        """All of an answer, which may have so many bytes."""
        length = answer.headers.get("Content-Length", "")
        if length.isascii() and length.isdecimal() and int(length[:20]) > limit:
            raise self._lies(f"it announces {length[:20]} bytes where {limit} may come")
        found = bytearray()
        for piece in answer.raw.stream(_PIECE, decode_content=False):
            found += piece
            if len(found) > limit:
                raise self._lies(f"more comes than the {limit} bytes that may come")
        return bytes(found)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Turn what `requests` and what it stands on raise into errors of ours."""
        import urllib3

        host = self.image.host
        try:
            yield
        except requests.exceptions.SSLError as error:
            if "WRONG_VERSION_NUMBER" in str(error) or "record layer failure" in str(error):
                raise RegistryError(
                    f"{host} does not speak TLS",
                    why="plain HTTP is for registries on this machine alone",
                    hint="name it by localhost or its loopback address if it is on this machine",
                ) from error
            raise RegistryError(
                f"{host} cannot be trusted",
                why=_reason(error),
                hint=f"the certificate of its authority may be {_CERTIFICATES[0]}/{host}/ca.crt",
            ) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise RegistryError(
                f"{host} cannot be reached, or broke off",
                why=_reason(error),
                hint="see its name, and whether the registry runs and can be reached from here",
            ) from error
        except ValueError as error:  # an address or a header that is none
            raise RegistryError(f"{host} gives an answer that is none", why=str(error)) from error

    def _lies(self, why: str) -> RegistryError:
        return wrong(str(self.image), why)

    # --- who one is -----------------------------------------------------------------------------

    def _log_in(self, refused: requests.Response) -> bool:
        """Do what an answer 401 asks for; False if nothing can be done."""
        kind, _blank, rest = refused.headers.get("WWW-Authenticate", "").partition(" ")
        login = credentials.login(self.image)
        if kind.lower() == "basic" and login:
            self._authorization = login.header
            return True
        if kind.lower() != "bearer":
            return False
        asked = dict(re.findall(r'(\w+)="([^"]{0,2000})"', rest[:8000]))
        url = asked.get("realm", "")
        words = {"service": asked.get("service", ""), "scope": self._scope}
        if urlsplit(url).scheme != "https" and not (
            self.image.is_local and Reference(urlsplit(url).netloc, "").is_local
        ):
            raise self._lies("it asks for a login without TLS")
        headers = {"Accept-Encoding": "identity", "User-Agent": "xdpctl"}
        if login:
            headers["Authorization"] = login.header
        with self._session.get(
            f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(words)}",
            headers=headers,
            stream=True,
            allow_redirects=False,
            timeout=_WAIT,
            proxies={} if self.image.is_local else requests.utils.get_environ_proxies(url),
        ) as answer:
            self._check(answer)
            found = manifest.parsed(str(self.image), self._read(answer, _TOKEN_LIMIT))
        token = found.get("token") or found.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise self._lies("it gives no token")
        self._authorization = f"Bearer {token}"
        return True


def _certificates(host: str) -> str | bool:
    """The authorities that a registry's certificate may be of: a file, or True for the usual."""
    named = [f"{directory}/{host}/ca.crt" for directory in _CERTIFICATES]
    named.append(os.environ.get("SSL_CERT_FILE", ""))
    return next((path for path in named if path and os.path.exists(path)), True)


def _reason(error: Exception) -> str:
    """The last of the causes that an error of these libraries carries, in a few words."""
    seen: BaseException = error
    for _number in range(8):
        inner = getattr(seen, "reason", None) or next(
            (one for one in seen.args if isinstance(one, BaseException)), None
        )
        if not isinstance(inner, BaseException):
            break
        seen = inner
    text = seen.strerror if isinstance(seen, OSError) and seen.strerror else str(seen)
    return _NOISE.sub("", text)[:500]
