"""A persistent index on LanceDB: image retrieval by a sentence, caption retrieval by a picture.

index = tshsr.Index.open("demo/index")
index.search("two dogs in snow", k=10)
"""

from importlib.util import find_spec

from tshsr.errors import SettingsError

if find_spec("lancedb") is None or find_spec("pyarrow") is None:
    raise SettingsError("an index needs LanceDB, which is not installed: pip install 'tshsr[search]'.")
