"""One error tree. Every message says the cause, then the remedy."""

from __future__ import annotations


class HeadwaterError(Exception):
    """Root of every error that Headwater raises on purpose.

    `message` says what is wrong; `remedy` says what the reader can do about it.
    """

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.message = message
        self.remedy = remedy


class SettingsInvalid(HeadwaterError):
    """A setting is missing, malformed, or contradicts another."""


class EventInvalid(HeadwaterError):
    """A record is not the event that its topic promises."""


class ContractBroken(HeadwaterError):
    """A change of the structs would break an older reader or writer."""


class ClientClosed(HeadwaterError):
    """A client is used before it was opened or after it was closed."""


class BrokerUnreachable(HeadwaterError):
    """No Kafka broker answers at the configured address."""


class TopicMissing(HeadwaterError):
    """The broker answers but has no such topic or partition."""


class NotAuthorised(HeadwaterError):
    """The broker refused the credentials, or they do not allow this."""


class RecordTooLarge(HeadwaterError):
    """A record is over the size that its topic takes."""


class DeliveryFailed(HeadwaterError):
    """A record was not acknowledged by the broker for another reason."""


class Fenced(HeadwaterError):
    """Another worker took over the partition that this one was writing for."""


class AnswerTimeout(HeadwaterError):
    """Nothing more came for a prompt within the allowed time."""


class GenerationFailed(HeadwaterError):
    """The engine ended a prompt with an error instead of an answer."""


class ModelUnavailable(HeadwaterError):
    """A language model or embedder cannot be found or loaded."""


class ModelBusy(ModelUnavailable):
    """A model or adapter cannot be loaded at this moment; the same may do a moment later."""


class ArtifactInvalid(HeadwaterError):
    """An adapter that an update names is not what the update says, and never will be."""


class ArtifactUnavailable(HeadwaterError):
    """Where adapters are kept cannot be reached at this moment."""


class IndexUnavailable(HeadwaterError):
    """The passage index cannot be opened or does not answer."""


class IndexRefused(HeadwaterError):
    """The passage index works, but refused this one operation."""


class ProvisioningFailed(HeadwaterError):
    """A part of the local runtime (JRE, Kafka) could not be fetched or verified."""


class WorkerFailed(HeadwaterError):
    """A supervised process did not start, or keeps dying."""


class LedgerBroken(HeadwaterError):
    """The privacy ledger does not verify, or contradicts what was about to be written to it."""


class BudgetSpent(HeadwaterError):
    """The privacy budget of an adapter allows no further round."""


class DataInvalid(HeadwaterError):
    """A file of examples or an adapter on disk is not what it should be."""


class QuorumMissed(HeadwaterError):
    """Fewer devices took part in a federated round than its accounting assumes."""


class FederationUnreachable(HeadwaterError):
    """The SuperLink does not answer, or refuses what was asked of it."""
