"""A collection that is searched: pictures by a sentence, sentences by a picture.

index = Index.open("demo/index")
index.search("two dogs in snow", k=10)
"""

from tshsr.errors import SettingsError

try:
    from tshsr.index.collection import Index
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("lancedb", "pyarrow"):
        raise
    raise SettingsError("an index needs LanceDB, which is not installed: pip install 'tshsr[search]'.") from None
from tshsr.index.results import CaptionResult, Result, WordBoxes

__all__ = ["CaptionResult", "Index", "Result", "WordBoxes"]
