"""Stated limits of every record: beyond one the SDK refuses and agents dead-letter.

Characters are Unicode code points; bytes are those of the encoded record value.
"""

from typing import Final

ID_CHARS_MAX: Final = 256
PASSAGE_ID_CHARS_MAX: Final = 300  # document_id + "#" + index
NAME_CHARS_MAX: Final = 200
TITLE_CHARS_MAX: Final = 1_000
URI_CHARS_MAX: Final = 2_000
LABEL_CHARS_MAX: Final = 1_000
REASON_CHARS_MAX: Final = 2_000

DOCUMENT_CHARS_MAX: Final = 400_000
PASSAGE_CHARS_MAX: Final = 20_000
EMBEDDING_BYTES_MAX: Final = 49_152  # a float32 vector of 12,288 dimensions
MESSAGES_MAX: Final = 256
MESSAGE_CHARS_MAX: Final = 100_000
ANSWER_CHARS_MAX: Final = 200_000
CORRECTION_CHARS_MAX: Final = 100_000

METADATA_ENTRIES_MAX: Final = 64
EVALUATION_ENTRIES_MAX: Final = 64
HEADERS_MAX: Final = 128
LABELS_MAX: Final = 64
STOPS_MAX: Final = 16
STOP_CHARS_MAX: Final = 200
TOP_K_MAX: Final = 50
SKETCH_NUMBERS_MAX: Final = 64
MAX_TOKENS_MAX: Final = 8_192
N_MAX: Final = 8
TOP_LOGPROBS_MAX: Final = 20
# Log probabilities told for one prompt at most: n · max_tokens · (1 + top_logprobs).
LOGPROBS_MAX: Final = 16_384
TOKEN_CHARS_MAX: Final = 1_000
JSON_SCHEMA_BYTES_MAX: Final = 16_384
SEED_MAX: Final = 2**53 - 1  # what every JSON reader keeps exactly
VARIANTS_MAX: Final = 16
CHOICE_FEATURES_MAX: Final = 64
FEATURES_MAX: Final = 128
REASONS_MAX: Final = 16
PARTITION_MAX: Final = 100_000

RECORD_BYTES_MAX: Final = 1_048_576
# Key, headers and framing of a record, on top of its value.
FRAMING_BYTES_MAX: Final = 65_536
# A dead letter holds the original record in base64 (4/3), so its topic takes larger records.
DEAD_LETTER_BYTES_MAX: Final = 8 * 1_048_576
DEAD_LETTER_VALUE_BYTES_MAX: Final = 5 * 1_048_576
