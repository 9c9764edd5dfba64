"""The package's exceptions: each carries one sentence that says what was expected, what came, and what to do."""


class TshsrError(Exception):
    """The root of every error that a user can mend; the command line prints its sentence and exits with 2."""


class DataError(TshsrError):
    """A file or folder of data is missing, damaged or not what it claims to be."""


class PictureError(DataError):
    """A picture cannot be read: broken, truncated, empty, too large, or no picture at all."""


class SettingsError(TshsrError):
    """A setting, recipe or argument has a name or value that cannot be used."""


class InputError(TshsrError):
    """Tensors or scores given to a public function have a wrong shape, or hold values that are not finite."""


class CheckpointError(TshsrError):
    """A run's folder is missing, incomplete, or does not fit the model or the data."""


class CollapseError(TshsrError):
    """Training stopped because the network scores every pair alike."""


class DivergenceError(TshsrError):
    """Training stopped because the loss or its gradient is no longer a finite number."""
