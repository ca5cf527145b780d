#include "grapnel/io/digest.h"

#include <xxhash.h>

namespace grapnel {
namespace io {
namespace {

std::string Canonical(XXH128_hash_t hash) {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, hash);
  return std::string(reinterpret_cast<const char*>(canonical.digest),
                     sizeof(canonical.digest));
}

}  // namespace

Xxh3Hasher64::Xxh3Hasher64() : state_(XXH3_createState()) {
  XXH3_64bits_reset(state_);
}

Xxh3Hasher64::~Xxh3Hasher64() { XXH3_freeState(state_); }

void Xxh3Hasher64::Update(absl::string_view data) {
  XXH3_64bits_update(state_, data.data(), data.size());
}

uint64_t Xxh3Hasher64::Digest() const { return XXH3_64bits_digest(state_); }

Xxh3Hasher128::Xxh3Hasher128() : state_(XXH3_createState()) {
  XXH3_128bits_reset(state_);
}

Xxh3Hasher128::~Xxh3Hasher128() { XXH3_freeState(state_); }

void Xxh3Hasher128::Update(absl::string_view data) {
  XXH3_128bits_update(state_, data.data(), data.size());
}

std::string Xxh3Hasher128::Digest() const {
  return Canonical(XXH3_128bits_digest(state_));
}

uint64_t Xxh3Digest64(absl::string_view data) {
  return XXH3_64bits(data.data(), data.size());
}

std::string Xxh3Digest128(absl::string_view data) {
  return Canonical(XXH3_128bits(data.data(), data.size()));
}

}  // namespace io
}  // namespace grapnel
