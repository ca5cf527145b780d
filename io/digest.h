// XXH3 digests: they find damage, not forgery.

#ifndef GRAPNEL_IO_DIGEST_H_
#define GRAPNEL_IO_DIGEST_H_

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

struct XXH3_state_s;

namespace grapnel {
namespace io {

// XXH3-64 of bytes that come in pieces. Thread-compatible.
class Xxh3Hasher64 {
 public:
  Xxh3Hasher64();
  Xxh3Hasher64(const Xxh3Hasher64&) = delete;
  Xxh3Hasher64& operator=(const Xxh3Hasher64&) = delete;
  ~Xxh3Hasher64();
  void Update(absl::string_view data);
  uint64_t Digest() const;  // Of what came so far.

 private:
  XXH3_state_s* const state_;
};

// XXH3-128, as 16 bytes, big-endian ("canonical").
class Xxh3Hasher128 {
 public:
  Xxh3Hasher128();
  Xxh3Hasher128(const Xxh3Hasher128&) = delete;
  Xxh3Hasher128& operator=(const Xxh3Hasher128&) = delete;
  ~Xxh3Hasher128();
  void Update(absl::string_view data);
  std::string Digest() const;

 private:
  XXH3_state_s* const state_;
};

uint64_t Xxh3Digest64(absl::string_view data);
std::string Xxh3Digest128(absl::string_view data);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_DIGEST_H_
