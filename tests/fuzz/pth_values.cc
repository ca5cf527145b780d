#include "grapnel/tests/fuzz/pth_values.h"

#include <cstddef>
#include <cstdint>
#include <string>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "grapnel/base/log.h"
#include "grapnel/base/utf8.h"
#include "grapnel/io/pth.h"
#include "grapnel/tests/fuzz/bytes_env.h"
#include "grapnel/tests/fuzz/fuzz_target.h"

namespace grapnel {
namespace {

using ::grapnel::io::PthFile;
using ::grapnel::io::PthOptions;
using ::grapnel::io::PthValue;

constexpr int kMaxDepth = 200;

// What a tree of values holds. A file of 1 kB may be one of 2^100 values: not
// all are visited.
class Visitor {
 public:
  void Visit(const PthValue& value, int depth) {
    using Kind = PthValue::Kind;
    if (--left_ < 0) return;
    GRAPNEL_CHECK(depth <= kMaxDepth);
    GRAPNEL_CHECK(IsUtf8(value.type_name())) << value.type_name();
    const Kind kind = value.kind();
    switch (kind) {
      case Kind::kString:
      case Kind::kDevice:
      case Kind::kDtype:
        GRAPNEL_CHECK(IsUtf8(value.string_value())) << value.string_value();
        break;
      case Kind::kBytes:
      case Kind::kBigInt:
        for (const char c : value.string_value()) sum_ += c;
        break;
      case Kind::kTensor:
        VisitTensor(value.tensor());
        break;
      case Kind::kDict:
        for (int64_t i = 0; i < value.size() && left_ > 0; ++i) {
          Visit(value.key(i), depth + 1);
          Visit(value.value(i), depth + 1);
        }
        value.Find("state_dict");
        break;
      case Kind::kTuple:
      case Kind::kList:
      case Kind::kSet:
      case Kind::kOpaque:
        for (int64_t i = 0; i < value.size() && left_ > 0; ++i) {
          Visit(value.item(i), depth + 1);
        }
        break;
      default:
        sum_ += value.float_value();
    }
    GRAPNEL_CHECK(kind == Kind::kTensor || !value.tensor().defined());
    GRAPNEL_CHECK(value.size() >= 0);
  }

 private:
  // Every element lies in the storage, and every byte of that can be read.
  void VisitTensor(const at::Tensor& tensor) {
    GRAPNEL_CHECK(tensor.defined() && tensor.is_cpu());
    const auto num_bytes = static_cast<int64_t>(tensor.storage().nbytes());
    int64_t last = tensor.storage_offset();
    GRAPNEL_CHECK(last >= 0);
    for (int64_t dim = 0; dim < tensor.dim() && tensor.numel() > 0; ++dim) {
      int64_t step = 0;
      GRAPNEL_CHECK(tensor.stride(dim) >= 0);
      GRAPNEL_CHECK(!__builtin_mul_overflow(tensor.size(dim) - 1,
                                            tensor.stride(dim), &step));
      GRAPNEL_CHECK(!__builtin_add_overflow(last, step, &last));
    }
    const auto item_size = static_cast<int64_t>(tensor.element_size());
    GRAPNEL_CHECK(tensor.numel() == 0 || last < num_bytes / item_size)
        << last << " of " << num_bytes << " bytes";
    const char* const bytes = static_cast<const char*>(tensor.storage().data());
    for (int64_t i = 0; i < num_bytes; ++i) sum_ += bytes[i];
  }

  int left_ = 10000;
  volatile double sum_ = 0;
};

}  // namespace

// What PthFile::Read promises.
int64_t MaxMemory(int64_t size) {
  return (int64_t{64} << 20) + size + size / 10;
}

absl::Status ReadPthAndCheck(absl::string_view bytes) {
  BytesEnv env({{"/input", bytes}});
  absl::Status read[2];
  bool verified[2] = {};
  for (const bool allow_foreign : {false, true}) {
    PthOptions options;
    options.allow_foreign = allow_foreign;
    const absl::StatusOr<PthFile> file = PthFile::Read(env, "/input", options);
    read[allow_foreign] = file.status();
    CheckStatus(file.status());
    if (!file.ok()) continue;
    Visitor().Visit(file->root(), 0);
    verified[allow_foreign] = file->verified();
  }
  GRAPNEL_CHECK(!read[0].ok() || read[1].ok()) << read[1];
  if (read[0].ok()) {
    GRAPNEL_CHECK(verified[0] == verified[1]);
    GRAPNEL_CHECK(io::LooksLikePth(bytes.substr(0, 16)));
  }
  return read[0];
}

}  // namespace grapnel
