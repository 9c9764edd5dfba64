"""`tshsr serve`: a web server over an index, local by default."""

from __future__ import annotations

import errno
import importlib.util
import logging
import math
import socket
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from tshsr.cli.options import Argument, Flag, Name, OptionalPath, choose_device, parse
from tshsr.cli.screen import Screen
from tshsr.errors import SettingsError

if TYPE_CHECKING:
    from tshsr.index.collection import Index

EXAMPLE = "tshsr serve demo/index"
NEEDED = {
    "fastapi": "fastapi",
    "fastapi_offline": "fastapi-offline",
    "prometheus_client": "prometheus-client",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "lancedb": "lancedb",
}
"""Modules of the extras, and their names on the package index."""
EXPOSED = (
    "Any client that can reach this machine at {host} can search and view these pictures: there is no password and no "
    "encryption. Without --host the server is for this machine alone."
)
UNENCRYPTED = (
    "Any client that can reach this machine at {host} and has the token can search and view these pictures. Nothing is "
    "encrypted, neither pictures nor token: put a proxy with TLS in front."
)
READABLE = "Other users of this machine can read {file}, the file of the token; chmod 600 makes it yours alone."


@dataclass(frozen=True)
class Serve:
    """A page and a REST interface over an index: search by a sentence or a picture, with explanations."""

    index: Annotated[str, Argument("INDEX", positional=True)]
    """An index made by tshsr index."""
    run: Name = None
    """The run; by default the one that made the index."""
    host: str = "127.0.0.1"
    """The address to listen at; the default accepts only this machine, 0.0.0.0 every network."""
    port: int = 8000
    """The port to listen at; 0 chooses a free one."""
    open: Flag = False
    """Open the page in a browser."""
    upload_mib: int = 20
    """Largest upload, in MiB."""
    seconds: float = 20.0
    """Time limit of a request, with its time in the queue, and of the arrival of its body."""
    token_file: OptionalPath = None
    """File with a token of 16 characters or more: clients must send it, browsers once, in a form."""
    allow_host: Annotated[tuple[str, ...], Argument("NAME")] = ()
    """Names by which clients reach the server, through a proxy for example; requests to other names are refused. By
    default those of this machine alone, with --host all."""
    log: Literal["text", "json"] = "text"
    """text: errors; json: a JSON object for each request and each error, on stderr."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Serve until Ctrl-C.

    Raises:
        SettingsError: Where a package is missing, or the address is not available.
        DataError: Where there is no such index.
    """
    wanted = parse(Serve, "tshsr serve", arguments, example=EXAMPLE)
    if wanted.upload_mib < 1:
        raise SettingsError(f"--upload-mib is {wanted.upload_mib}; expected 1 or more.")
    if not 0 < wanted.seconds < math.inf:
        raise SettingsError(f"--seconds is {wanted.seconds:g}; expected a number above 0.")
    check_extras()
    check_hosts(wanted.allow_host)
    token_of(wanted)  # refused before the index is opened
    listener = listen(wanted.host, wanted.port)
    with listener:
        serve(wanted, listener, screen)


def serve(wanted: Serve, listener: socket.socket, screen: Screen) -> None:
    """Open the index and serve it at a socket."""
    from tshsr.index.collection import Index

    serve_index(Index.open(wanted.index, run=wanted.run, device=choose_device(wanted.device)), wanted, listener, screen)


def serve_index(index: Index, wanted: Serve, listener: socket.socket, screen: Screen) -> None:
    """Serve an open index at a socket; of the options, those of the server apply."""
    # These need the extras, which `check_extras` has found.
    from tshsr.server.access import readable_by_others
    from tshsr.server.guard import Limits, is_loopback
    from tshsr.server.running import bounded_by_handles, ended_by_signals, run
    from tshsr.server.server import Backend, create_app

    head = min(Limits.header_seconds, wanted.seconds / 2)
    limits = Limits(upload_bytes=wanted.upload_mib * 2**20, seconds=wanted.seconds, header_seconds=head)
    limits = bounded_by_handles(limits)
    local = is_loopback(wanted.host)
    token = token_of(wanted)
    app = create_app(index, limits, local=local, hosts=wanted.allow_host, token=token)
    backend: Backend = app.state.backend
    service = backend.service
    backend.network.warm_up(service.prepare)
    start_log(wanted, screen)
    if index.about.unfinished is not None:
        screen.note(f"{index.about.unfinished} is not complete yet; what tshsr index adds is found at once.")
    if service.no_uploads is not None:
        screen.note(f"Pictures can't be uploaded to this server: {service.no_uploads}")
    if wanted.token_file is not None and readable_by_others(wanted.token_file):
        screen.note(READABLE.format(file=wanted.token_file))
    if not local:
        screen.note((EXPOSED if token is None else UNENCRYPTED).format(host=wanted.host))
    where = address(wanted.host, listener.getsockname()[1])
    with ended_by_signals():
        screen.say(f"{len(index):,} pictures, {index.captions:,} captions: {where} (Ctrl-C stops)")
        screen.out.file.flush()
        if wanted.open:
            webbrowser.open(where)  # requests wait at the socket until the server runs
        run(app, listener, limits)
    screen.note("Stopped.")


def check_hosts(names: Sequence[str]) -> None:
    """Refuse what no request can name as its host.

    Raises:
        SettingsError: With the first of them.
    """
    from tshsr.server.guard import host_name

    for name in names:
        if host_name(name) != name or not name:
            raise SettingsError(
                f"--allow-host is {name!r:.80}; expected a name or an address without http:// and port, such as "
                "pictures.example or [::1]."
            )


def token_of(wanted: Serve) -> str | None:
    """The token; None where clients need none.

    Raises:
        SettingsError: Where its file can't be used.
    """
    from tshsr.server.access import read_token

    return None if wanted.token_file is None else read_token(wanted.token_file)


def start_log(wanted: Serve, screen: Screen) -> None:
    """Send log records to stderr, in the wanted form."""
    from rich.logging import RichHandler

    from tshsr.server.logs import log_json

    if wanted.log == "json":
        log_json()
    else:
        handler = RichHandler(console=screen.notes, show_path=False)
        logging.basicConfig(handlers=[handler], format="%(message)s", level=logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # malformed forms of clients
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # malformed requests of clients


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        SettingsError: Where the port is taken, or the address is not this machine's.
    """
    if not 0 <= port <= 65535:
        raise SettingsError(f"--port is {port}; expected a number from 1 to 65535, or 0 for a free one.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"port {port} at {host} is taken; stop what listens there, or name another one with --port "
                "(0 takes a free one)."
            ) from None
        if error.errno == errno.EACCES:
            raise SettingsError(f"port {port} is for administrators; name one from 1024 up with --port.") from None
        raise SettingsError(
            f"--host is {host!r}, where this machine can't listen ({error.strerror or error}); expected 127.0.0.1, "
            "0.0.0.0, or an address of this machine."
        ) from None


def address(host: str, port: int) -> str:
    """The URL for a browser on this machine."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - read, not bound # nosec B104
    return f"http://{name}:{port}/"


def check_extras(
    command: str = "tshsr serve", extras: str = "serve,search", needed: Mapping[str, str] = NEEDED
) -> None:
    """Check that the extras of a command are installed.

    Args:
        needed: Their modules, and the packages of these.

    Raises:
        SettingsError: Where some are missing; the message names the packages.
    """
    missing = [name for module, name in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise SettingsError(f"{command} needs {', '.join(missing)}; install them: pip install 'tshsr[{extras}]'.")
