// libflowmesh_arrow.so: the rows of Parquet and Arrow files as JSON.
#include "executors/data/arrow_library.h"

#include <arrow/api.h>
#include <arrow/io/file.h>
#include <arrow/ipc/reader.h>
#include <parquet/arrow/reader.h>

#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace flowmesh::data {
namespace {

using arrow::Array;
using arrow::Type;
using TablePointer = std::shared_ptr<arrow::Table>;

Json ValueAt(const Array& array, int64_t i);

// Bytes that are no UTF-8 become U+FFFD.
Json TextOf(std::string_view bytes) {
  const Json raw = std::string(bytes);
  return Json::parse(raw.dump(-1, ' ', false, Json::error_handler_t::replace));
}

template <typename ArrayType>
Json NumberAt(const Array& array, int64_t i) {
  return static_cast<const ArrayType&>(array).Value(i);
}

template <typename ArrayType>
Json TextAt(const Array& array, int64_t i) {
  return TextOf(static_cast<const ArrayType&>(array).GetView(i));
}

template <typename ArrayType>
Json ListAt(const Array& array, int64_t i) {
  const auto& list = static_cast<const ArrayType&>(array);
  Json values = Json::array();
  for (int64_t at = list.value_offset(i), end = at + list.value_length(i); at < end; ++at) {
    values.push_back(ValueAt(*list.values(), at));
  }
  return values;
}

Json StructAt(const arrow::StructArray& array, int64_t i) {
  Json values = Json::object();
  for (int field = 0; field < array.num_fields(); ++field) {
    values[array.struct_type()->field(field)->name()] = ValueAt(*array.field(field), i);
  }
  return values;
}

// A list of [key, value]: keys need not be texts.
Json MapAt(const arrow::MapArray& array, int64_t i) {
  Json pairs = Json::array();
  for (int64_t at = array.value_offset(i), end = at + array.value_length(i); at < end; ++at) {
    pairs.push_back(Json::array({ValueAt(*array.keys(), at), ValueAt(*array.items(), at)}));
  }
  return pairs;
}

// Whatever has no form in JSON (dates, times, decimals) as Arrow prints it.
Json PrintedAt(const Array& array, int64_t i) {
  const auto scalar = array.GetScalar(i);
  if (!scalar.ok()) throw std::runtime_error(scalar.status().ToString());
  return (*scalar)->ToString();
}

Json ValueAt(const Array& array, int64_t i) {
  if (array.IsNull(i)) return nullptr;
  switch (array.type_id()) {
    case Type::NA:
      return nullptr;
    case Type::BOOL:
      return NumberAt<arrow::BooleanArray>(array, i);
    case Type::INT8:
      return NumberAt<arrow::Int8Array>(array, i);
    case Type::INT16:
      return NumberAt<arrow::Int16Array>(array, i);
    case Type::INT32:
      return NumberAt<arrow::Int32Array>(array, i);
    case Type::INT64:
      return NumberAt<arrow::Int64Array>(array, i);
    case Type::UINT8:
      return NumberAt<arrow::UInt8Array>(array, i);
    case Type::UINT16:
      return NumberAt<arrow::UInt16Array>(array, i);
    case Type::UINT32:
      return NumberAt<arrow::UInt32Array>(array, i);
    case Type::UINT64:
      return NumberAt<arrow::UInt64Array>(array, i);
    case Type::FLOAT:
      return NumberAt<arrow::FloatArray>(array, i);
    case Type::DOUBLE:
      return NumberAt<arrow::DoubleArray>(array, i);
    case Type::STRING:
      return TextAt<arrow::StringArray>(array, i);
    case Type::LARGE_STRING:
      return TextAt<arrow::LargeStringArray>(array, i);
    case Type::STRING_VIEW:
      return TextAt<arrow::StringViewArray>(array, i);
    case Type::BINARY:
      return TextAt<arrow::BinaryArray>(array, i);
    case Type::LARGE_BINARY:
      return TextAt<arrow::LargeBinaryArray>(array, i);
    case Type::FIXED_SIZE_BINARY:
      return TextAt<arrow::FixedSizeBinaryArray>(array, i);
    case Type::LIST:
      return ListAt<arrow::ListArray>(array, i);
    case Type::LARGE_LIST:
      return ListAt<arrow::LargeListArray>(array, i);
    case Type::FIXED_SIZE_LIST:
      return ListAt<arrow::FixedSizeListArray>(array, i);
    case Type::MAP:
      return MapAt(static_cast<const arrow::MapArray&>(array), i);
    case Type::STRUCT:
      return StructAt(static_cast<const arrow::StructArray&>(array), i);
    case Type::DICTIONARY: {
      const auto& words = static_cast<const arrow::DictionaryArray&>(array);
      return ValueAt(*words.dictionary(), words.GetValueIndex(i));
    }
    case Type::EXTENSION:
      return ValueAt(*static_cast<const arrow::ExtensionArray&>(array).storage(), i);
    default:
      return PrintedAt(array, i);
  }
}

arrow::Result<TablePointer> ReadParquet(std::shared_ptr<arrow::io::RandomAccessFile> file) {
  ARROW_ASSIGN_OR_RAISE(const auto reader,
                        parquet::arrow::OpenFile(std::move(file), arrow::default_memory_pool()));
  return reader->ReadTable();
}

// The file format, else a stream: what `datasets` writes into its cache.
arrow::Result<TablePointer> ReadArrowFile(std::shared_ptr<arrow::io::RandomAccessFile> file) {
  std::vector<std::shared_ptr<arrow::RecordBatch>> batches;
  auto opened = arrow::ipc::RecordBatchFileReader::Open(file);
  if (!opened.ok()) {
    ARROW_RETURN_NOT_OK(file->Seek(0));
    ARROW_ASSIGN_OR_RAISE(const auto stream, arrow::ipc::RecordBatchStreamReader::Open(file));
    return stream->ToTable();
  }
  for (int i = 0; i < (*opened)->num_record_batches(); ++i) {
    ARROW_ASSIGN_OR_RAISE(auto batch, (*opened)->ReadRecordBatch(i));
    batches.push_back(std::move(batch));
  }
  return arrow::Table::FromRecordBatches((*opened)->schema(), batches);
}

arrow::Status Read(const std::string& path, bool is_parquet, std::vector<std::string>& columns,
                   std::vector<Json>& rows) {
  ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::io::RandomAccessFile> file,
                        arrow::io::ReadableFile::Open(path));
  ARROW_ASSIGN_OR_RAISE(const TablePointer table,
                        is_parquet ? ReadParquet(std::move(file)) : ReadArrowFile(std::move(file)));
  ARROW_RETURN_NOT_OK(table->ValidateFull());  // a damaged file must not lead out of its buffers
  columns = table->ColumnNames();
  rows.assign(static_cast<size_t>(table->num_rows()), Json::object());
  for (int column = 0; column < table->num_columns(); ++column) {
    size_t row = 0;
    for (const std::shared_ptr<Array>& chunk : table->column(column)->chunks()) {
      for (int64_t i = 0; i < chunk->length(); ++i) {
        rows[row++][columns[static_cast<size_t>(column)]] = ValueAt(*chunk, i);
      }
    }
  }
  return arrow::Status::OK();
}

}  // namespace
}  // namespace flowmesh::data

// As ReadArrowFunction says.
extern "C" bool flowmesh_read_arrow(const std::string& path, bool is_parquet,
                                    std::vector<std::string>& columns,
                                    std::vector<flowmesh::Json>& rows, std::string& error) {
  try {
    const arrow::Status status = flowmesh::data::Read(path, is_parquet, columns, rows);
    if (!status.ok()) error = status.message();
    return status.ok();
  } catch (const std::exception& e) {  // Parquet's own, and memory
    error = e.what();
    return false;
  }
}
