"""The synchronous façade against a real broker."""

from __future__ import annotations

import pytest

from headwater import Document, SyncClient
from schemas.errors import EventInvalid
from streams.settings import KafkaSettings

pytestmark = pytest.mark.integration


def test_the_synchronous_client_does_the_same(kafka: KafkaSettings) -> None:
    with SyncClient(kafka) as client:
        document_id = client.publish_document("Water is wet.")
        assert client.publish_documents(Document(str(n), f"d{n}") for n in range(100)) == 100
        for document in client.subscribe("documents", since="earliest"):
            if document.text == "Water is wet.":
                break
        with pytest.raises(EventInvalid):
            client.feedback(prompt_id="p")
        client.delete_document(document_id)
