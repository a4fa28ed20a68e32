"""What `mcap doctor` (Go) looks for in a file, by the reference library in Python: structure, index, sums."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from mcap import records as kinds
from mcap.reader import SeekingReader
from mcap.stream_reader import StreamReader, breakup_chunk

PROFILES = ("", "ros1", "ros2")


def complaints(path: Path) -> list[str]:
    """Everything that is not as it should be."""
    with path.open("rb") as file:
        records = list(StreamReader(file, emit_chunks=True, validate_crcs=True).records)
    end = next(n for n, record in enumerate(records) if isinstance(record, kinds.DataEnd))
    data, summary = records[:end], records[end + 1 :]
    found = _header(records[0]) + _footer(records[-1])
    messages, known, chunks = [], {}, []
    for n, record in enumerate(data):
        if isinstance(record, kinds.Chunk):
            inside = breakup_chunk(record, validate_crc=True)
            index = _indices(data[n + 1 :])
            found += _chunk(record, inside, index, known)
            messages += [each for each in inside if isinstance(each, kinds.Message)]
            chunks.append(record)
        elif isinstance(record, (kinds.Message, kinds.Schema, kinds.Channel)):
            found.append(f"a {type(record).__name__} outside the chunks")
    times = [message.log_time for message in messages]
    found += ["log times go back"] * (times != sorted(times))
    return found + _summary(summary, known, chunks, messages) + _seeks(path, len(messages))


def _header(header) -> list[str]:
    wrong = ["no header"] * (not isinstance(header, kinds.Header))
    return wrong or ["no library"] * (not header.library) + ["odd profile"] * (header.profile not in PROFILES)


def _footer(footer) -> list[str]:
    return ["no footer"] * (not isinstance(footer, kinds.Footer) or not footer.summary_crc)


def _indices(following) -> dict:
    found = {}
    for record in following:
        if not isinstance(record, kinds.MessageIndex):
            break
        found[record.channel_id] = {time for time, _ in record.records}, len(record.records)
    return found


def _chunk(chunk, inside, index, known) -> list[str]:
    found = ["a chunk without a sum"] * (not chunk.uncompressed_crc)
    messages = [record for record in inside if isinstance(record, kinds.Message)]
    for record in inside:
        if not isinstance(record, kinds.Message):
            key = type(record), record.id
            found += [f"twice: {key}"] * (key in known)
            known[key] = record
            if isinstance(record, kinds.Schema):
                found += ["an empty schema"] * (not record.encoding or not record.data)
            elif (kinds.Schema, record.schema_id) not in known:
                found.append("a channel without its schema")
        elif (kinds.Channel, record.channel_id) not in known:
            found.append("a message before its channel")
    times = [message.log_time for message in messages]
    if (min(times), max(times)) != (chunk.message_start_time, chunk.message_end_time):
        found.append("a chunk's times")
    for channel, count in Counter(message.channel_id for message in messages).items():
        if index.get(channel, (None, 0))[1] != count:
            found.append(f"channel {channel} is not indexed")
    return found


def _summary(summary, known, chunks, messages) -> list[str]:
    told = {(type(r), r.id): r for r in summary if isinstance(r, (kinds.Schema, kinds.Channel))}
    found = ["summary repeats other schemas or channels"] * (told != known)
    indexed = [record for record in summary if isinstance(record, kinds.ChunkIndex)]
    sizes = [(i.uncompressed_size, i.compressed_size, i.compression) for i in indexed]
    if sizes != [(c.uncompressed_size, len(c.data), c.compression) for c in chunks]:
        found.append("chunk indexes")
    statistics = [record for record in summary if isinstance(record, kinds.Statistics)]
    if len(statistics) != 1 or statistics[0].message_count != len(messages):
        found.append("statistics")
    elif statistics[0].channel_message_counts != Counter(m.channel_id for m in messages):
        found.append("statistics of channels")
    return found


def _seeks(path: Path, messages: int) -> list[str]:
    with path.open("rb") as file:
        count = sum(1 for _ in SeekingReader(file, validate_crcs=True).iter_messages())
    return [f"the index leads to {count} of {messages} messages"] * (count != messages)
