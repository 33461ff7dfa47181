// SHA-256 of bytes that come in pieces.
#pragma once

#include <memory>
#include <string>
#include <string_view>

struct evp_md_ctx_st;

namespace flowmesh {

// Not thread-safe.
class Sha256 {
 public:
  Sha256();
  Sha256(Sha256&&) = default;
  ~Sha256();

  void Update(std::string_view bytes);
  // Lower-case hex digits of all bytes so far; begins anew.
  std::string Hex();

 private:
  std::unique_ptr<evp_md_ctx_st, void (*)(evp_md_ctx_st*)> context_;
};

}  // namespace flowmesh
