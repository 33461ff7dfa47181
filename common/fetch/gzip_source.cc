#include "common/fetch/gzip_source.h"

#include <fcntl.h>
#include <isa-l/igzip_lib.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace flowmesh {
namespace {

constexpr size_t kInputSize = 64 << 10;
constexpr size_t kOutputSize = 256 << 10;
constexpr std::array<uint8_t, 2> kMagic = {0x1f, 0x8b};

ssize_t ReadSome(int fd, void* buffer, size_t size) {
  ssize_t n;
  do {
    n = ::read(fd, buffer, size);
  } while (n < 0 && errno == EINTR);
  return n;
}

}  // namespace

bool GzipSource::IsGzip(const std::filesystem::path& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<uint8_t, 2> begin;
  return fd.valid() && ReadSome(fd.get(), begin.data(), begin.size()) == 2 && begin == kMagic;
}

absl::StatusOr<std::unique_ptr<GzipSource>> GzipSource::Open(const std::filesystem::path& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoError("cannot open", path);
  return std::unique_ptr<GzipSource>(new GzipSource(path, std::move(fd)));
}

GzipSource::GzipSource(std::filesystem::path path, UniqueFd fd)
    : path_(std::move(path)),
      fd_(std::move(fd)),
      state_(std::make_unique<inflate_state>()),
      input_(kInputSize),
      output_(kOutputSize) {
  isal_inflate_init(state_.get());
  state_->crc_flag = ISAL_GZIP;
}

GzipSource::~GzipSource() = default;

absl::Status GzipSource::Damaged() const {
  return absl::InvalidArgumentError(
      absl::StrCat(path_.string(), ": expected gzip that is whole, got a damaged file"));
}

absl::StatusOr<bool> GzipSource::Fill() {
  if (state_->avail_in > 0) return true;
  const ssize_t n = ReadSome(fd_.get(), input_.data(), input_.size());
  if (n < 0) return ErrnoError("cannot read", path_);
  state_->next_in = input_.data();
  state_->avail_in = static_cast<uint32_t>(n);
  return n > 0;
}

absl::StatusOr<bool> GzipSource::BeginNextMember() {
  ASSIGN_OR_RETURN(const bool more, Fill());
  if (!more) return false;
  // The magic may lie across two reads.
  if (state_->avail_in == 1 && *state_->next_in == kMagic[0]) {
    input_[0] = kMagic[0];
    const ssize_t n = ReadSome(fd_.get(), input_.data() + 1, input_.size() - 1);
    if (n < 0) return ErrnoError("cannot read", path_);
    state_->next_in = input_.data();
    state_->avail_in = static_cast<uint32_t>(n) + 1;
  }
  if (state_->avail_in < kMagic.size() ||
      std::memcmp(state_->next_in, kMagic.data(), kMagic.size()) != 0) {
    return false;
  }
  isal_inflate_reset(state_.get());  // keeps the input
  state_->crc_flag = ISAL_GZIP;
  return true;
}

absl::StatusOr<std::string_view> GzipSource::Read() {
  size_t size = 0;
  while (!ended_ && size == 0) {
    state_->next_out = reinterpret_cast<uint8_t*>(output_.data());
    state_->avail_out = static_cast<uint32_t>(output_.size());
    const uint32_t before = state_->avail_in;
    // Also without input: some output may be left over from the last call.
    if (isal_inflate(state_.get()) < ISAL_DECOMP_OK) return Damaged();
    size = output_.size() - state_->avail_out;
    if (state_->block_state == ISAL_BLOCK_FINISH) {
      ASSIGN_OR_RETURN(const bool next, BeginNextMember());
      ended_ = !next;
    } else if (size == 0) {
      const bool stuck = before > 0 && state_->avail_in == before;
      ASSIGN_OR_RETURN(const bool more, Fill());
      if (stuck || !more) return Damaged();  // or it ends within a member
    }
  }
  return std::string_view(output_.data(), size);
}

}  // namespace flowmesh
