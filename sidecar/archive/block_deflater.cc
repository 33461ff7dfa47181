#include "sidecar/archive/block_deflater.h"

#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <cstdint>

namespace flowmesh::sidecar {
namespace {

constexpr size_t kStoredPiece = 65535;  // the longest stored block of the format
constexpr size_t kStoredHeader = 5;

int IsalLevel(int level) { return level <= 0 ? 0 : level <= 3 ? 1 : level <= 6 ? 2 : 3; }

size_t LevelBufferSize(int isal_level) {
  switch (isal_level) {
    case 1:
      return ISAL_DEF_LVL1_LARGE;
    case 2:
      return ISAL_DEF_LVL2_LARGE;
    case 3:
      return ISAL_DEF_LVL3_LARGE;
    default:
      return 0;
  }
}

void Store(std::string_view input, std::vector<unsigned char>& output) {
  output.clear();
  output.reserve(StoredSize(input.size()));
  while (!input.empty()) {
    const std::string_view piece = input.substr(0, kStoredPiece);
    const auto size = static_cast<uint16_t>(piece.size());
    const auto complement = static_cast<uint16_t>(~size);
    for (const int byte : {0, size & 0xff, size >> 8, complement & 0xff, complement >> 8}) {
      output.push_back(static_cast<unsigned char>(byte));
    }
    output.insert(output.end(), piece.begin(), piece.end());
    input.remove_prefix(piece.size());
  }
}

}  // namespace

size_t StoredSize(size_t size) {
  return size + kStoredHeader * ((size + kStoredPiece - 1) / kStoredPiece);
}

BlockDeflater::BlockDeflater(int level) : isal_level_(IsalLevel(level)) {
  if (isal_level_ == 0) return;
  stream_ = std::make_unique<isal_zstream>();
  level_buffer_.resize(LevelBufferSize(isal_level_));
}

BlockDeflater::~BlockDeflater() = default;

void BlockDeflater::Deflate(std::string_view input, std::vector<unsigned char>& output) {
  const size_t limit = StoredSize(input.size());
  if (isal_level_ > 0 && !input.empty()) {
    output.resize(limit);
    isal_deflate_stateless_init(stream_.get());
    stream_->level = isal_level_;
    stream_->level_buf = level_buffer_.data();
    stream_->level_buf_size = level_buffer_.size();
    stream_->flush = FULL_FLUSH;  // ends on a byte border
    stream_->end_of_stream = 0;
    stream_->next_in = reinterpret_cast<uint8_t*>(const_cast<char*>(input.data()));
    stream_->avail_in = input.size();
    stream_->next_out = output.data();
    stream_->avail_out = output.size();
    // It fails when the output does not fit.
    if (isal_deflate_stateless(stream_.get()) == COMP_OK && stream_->avail_in == 0 &&
        stream_->total_out < limit) {
      output.resize(stream_->total_out);
      return;
    }
  }
  Store(input, output);
}

}  // namespace flowmesh::sidecar
