"""Parquet and Arrow files in every form that data sets come in, and rows.json with what they hold.

    python3 -m venv v && v/bin/pip install -r requirements.txt && v/bin/python make_data.py
"""
import datetime
import decimal
import json
import pathlib

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
COUNT = 40


def table():
    """Columns of every kind, with nulls; the text has an umlaut and few words, so that it repeats."""
    places = range(COUNT)
    return pa.table({
        "text": pa.array([None if i == 3 else f"Zeile für {i % 5}" for i in places]),
        "number": pa.array([None if i % 7 == 0 else i * i - 50 for i in places], pa.int32()),
        "big": pa.array([2**63 + i for i in places], pa.uint64()),
        "share": pa.array([i / 3 for i in places], pa.float64()),
        "flag": pa.array([i % 2 == 0 for i in places]),
        "tags": pa.array([[f"t{j}" for j in range(i % 3)] if i % 4 else None for i in places]),
        "chat": pa.array([[{"role": "user", "content": f"c{i}", "scores": [i, None]}] for i in places]),
        "meta": pa.array([None if i == 5 else {"id": i, "inner": {"on": i > 9}} for i in places]),
        "pairs": pa.array([[("a", i)] for i in places], pa.map_(pa.string(), pa.int64())),
        "day": pa.array([datetime.date(2024, 2, 1 + i % 28) for i in places]),
        "price": pa.array([decimal.Decimal(i).scaleb(-2) for i in places], pa.decimal128(9, 2)),
        "word": pa.array([f"w{i % 2}" for i in places]).dictionary_encode(),
    })


def as_json(value):
    if isinstance(value, (datetime.date, decimal.Decimal)):
        return str(value)
    if isinstance(value, tuple):
        return [as_json(v) for v in value]
    if isinstance(value, list):
        return [as_json(v) for v in value]
    if isinstance(value, dict):
        return {k: as_json(v) for k, v in value.items()}
    return value


def main():
    rows = table()
    content = [as_json(row) for row in rows.to_pylist()]
    (HERE / "rows.json").write_text(json.dumps(content, ensure_ascii=False, indent=0) + "\n")
    for codec in ("none", "snappy", "gzip", "zstd"):
        pq.write_table(rows, HERE / f"{codec}.parquet", compression=codec)
    pq.write_table(rows, HERE / "plain_v1.parquet", data_page_version="1.0", use_dictionary=False, compression="none")
    pq.write_table(rows, HERE / "pages_v2.parquet", data_page_version="2.0", row_group_size=16, data_page_size=64)
    pq.write_table(rows.select(["text", "number", "big"]), HERE / "delta.parquet", use_dictionary=False, compression="none",
                   column_encoding={"text": "DELTA_BYTE_ARRAY", "number": "DELTA_BINARY_PACKED", "big": "DELTA_BINARY_PACKED"})
    pq.write_table(rows.slice(0, 0), HERE / "empty.parquet")
    feather.write_feather(rows, str(HERE / "file.arrow"), compression="uncompressed")
    with pa.ipc.new_stream(str(HERE / "stream.arrow"), rows.schema) as stream:
        stream.write_table(rows, max_chunksize=16)


if __name__ == "__main__":
    main()
