"""MLflow's model registry: a model for each adapter, a version for each release.

The alias `live` is on the version that serves, also after a rollback; it is on none where the base
model serves. MLflow counts versions by itself; ours is the tag `model_version`.
"""

from __future__ import annotations

import logging
import re
import shutil
from typing import TYPE_CHECKING, Final

from agents.tracking.mlflow_store import MlflowStore
from agents.tracking.points import version_tags
from agents.tracking.settings import TrackSettings
from models.artifacts import fetch
from models.engine.protocol import BASE_VERSION
from schemas.errors import HeadwaterError
from schemas.events import ModelUpdate

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LIVE: Final = "live"
# What MLflow refuses in the name of a model.
_REFUSED: Final = re.compile(r"[/:\x00]")

log = logging.getLogger("headwater.track")


class Registry:
    """Releases of all adapters, written as they come, each once. Not for several threads."""

    def __init__(self, store: MlflowStore, settings: TrackSettings) -> None:
        self._store = store
        self._client: MlflowClient = store.client
        self._fetched = settings.root / "fetched"
        # MLflow's numbers by our versions, by adapter.
        self._versions: dict[str, dict[str, str]] = {}

    def release(self, update: ModelUpdate) -> None:
        """Registers a version that is not known yet. Raises MlflowException."""
        known = self._known(update.adapter)
        if update.model_version in known or update.artifact_uri is None:
            return
        run_id = self._store.run_id(
            update.run or f"{update.adapter} ({update.origin})", update.published_ms
        )
        made = self._client.create_model_version(
            model_name(update.adapter),
            self._source(update, run_id),
            run_id,
            tags=version_tags(update),
            description=update.reason,
        )
        known[update.model_version] = str(made.version)

    def make_live(self, adapter: str, model_version: str) -> None:
        """Moves the alias. A version that was never registered takes it off."""
        number = self._known(adapter).get(model_version)
        name = model_name(adapter)
        if number is not None:
            self._client.set_registered_model_alias(name, LIVE, number)
            return
        if model_version != BASE_VERSION:
            log.warning("%s serves %s, which is not registered", adapter, model_version)
        if LIVE in self._client.get_registered_model(name).aliases:
            self._client.delete_registered_model_alias(name, LIVE)

    def _source(self, update: ModelUpdate, run_id: str) -> str:
        """The URI of a verified copy among the run's artifacts, or of the adapter itself."""
        uri, sha256 = update.artifact_uri or "", update.artifact_sha256 or ""
        try:
            folder = fetch(uri, sha256, self._fetched, update.artifact_config_sha256)
        except HeadwaterError as error:
            log.warning("%s is registered without its files: %s", update.model_version, error)
            return uri
        try:
            return self._store.add_files(run_id, folder, f"adapters/{update.model_version}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _known(self, adapter: str) -> dict[str, str]:
        if adapter not in self._versions:
            name = model_name(adapter)
            if not self._client.search_registered_models(f"name = '{name}'", max_results=1):
                self._client.create_registered_model(name, description=f"Adapter {adapter}")
            found = self._client.search_model_versions(f"name = '{name}'", max_results=10_000)
            self._versions[adapter] = {
                one.tags["model_version"]: str(one.version)
                for one in found
                if "model_version" in one.tags
            }
        return self._versions[adapter]


def model_name(adapter: str) -> str:
    """The name of an adapter in the registry."""
    return _REFUSED.sub("_", adapter).replace("'", "_")
