"""`tshsr serve`: a web server over an index, local by default."""

from __future__ import annotations

import errno
import importlib.util
import logging
import socket
import webbrowser
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tshsr.cli.options import Argument, Flag, Name, choose_device, parse
from tshsr.cli.screen import Screen
from tshsr.errors import SettingsError

if TYPE_CHECKING:
    from tshsr.index.collection import Index

EXAMPLE = "tshsr serve demo/index"
NEEDED = {
    "fastapi": "fastapi",
    "fastapi_offline": "fastapi-offline",
    "uvicorn": "uvicorn",
    "python_multipart": "python-multipart",
    "lancedb": "lancedb",
}
"""Modules of the extras, and their names on the package index."""
EXPOSED = (
    "Any client that can reach this machine at {host} can search and view these pictures: there is no password and no "
    "encryption. Without --host the server is for this machine alone."
)


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
    check_extras()
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
    import uvicorn
    from rich.logging import RichHandler

    from tshsr.server.guard import Limits, is_loopback
    from tshsr.server.server import Backend, create_app

    limits = Limits(upload_bytes=wanted.upload_mib * 2**20)
    local = is_loopback(wanted.host)
    app = create_app(index, limits, local=local)
    backend: Backend = app.state.backend
    service = backend.service
    backend.network.warm_up(service.prepare)
    handler = RichHandler(console=screen.notes, show_path=False)
    logging.basicConfig(handlers=[handler], format="%(message)s", level=logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # malformed forms of clients
    if index.about.unfinished is not None:
        screen.note(f"{index.about.unfinished} is not complete yet; what tshsr index adds is found at once.")
    if service.no_uploads is not None:
        screen.note(f"Pictures can't be uploaded to this server: {service.no_uploads}")
    if not local:
        screen.note(EXPOSED.format(host=wanted.host))
    where = address(wanted.host, listener.getsockname()[1])
    screen.say(f"{len(index):,} pictures, {index.captions:,} captions: {where} (Ctrl-C stops)")
    screen.out.file.flush()
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=3, limit_concurrency=512
    )
    if wanted.open:
        webbrowser.open(where)  # requests wait at the socket until the server runs
    with suppress(KeyboardInterrupt):  # uvicorn raises it again after the last response
        uvicorn.Server(config).run(sockets=[listener])
    screen.note("Stopped.")


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
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104 - read, not bound
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
