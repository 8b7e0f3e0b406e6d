"""Which dense index a retrieve worker searches."""

from __future__ import annotations

from agents.settings import RetrieveSettings
from models.retrieval.faiss_index import FaissIndex
from models.retrieval.index import PassageIndex


def open_index(settings: RetrieveSettings, dim: int) -> PassageIndex:
    """The dense index that the settings name; raises IndexUnavailable."""
    if settings.index == "faiss":
        return FaissIndex(dim)
    if settings.index == "qdrant":
        from models.retrieval.qdrant_index import QdrantIndex

        key = settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else None
        return QdrantIndex(
            settings.qdrant_url, dim, collection=settings.qdrant_collection, api_key=key
        )
    from models.retrieval.qdrant_edge import QdrantEdgeIndex

    return QdrantEdgeIndex(settings.qdrant_folder, dim)
