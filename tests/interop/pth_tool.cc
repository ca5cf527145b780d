// The C++ side of pth_read_test.py.
//
//   pth_tool [--foreign] [--quiet] FILE
//
// Prints what io::PthFile reads as JSON: "verified" and "root", where every
// value is [KIND, TYPE] or [KIND, TYPE, WHAT]. On the next line how many KiB of
// memory the reading needed at its peak, and milliseconds.

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "c10/core/ScalarType.h"
#include "grapnel/base/json_string.h"
#include "grapnel/io/crc32.h"
#include "grapnel/io/env.h"
#include "grapnel/io/pth.h"

namespace grapnel {
namespace {

using Kind = io::PthValue::Kind;

class Printer {
 public:
  std::string Print(const io::PthValue& value) {
    const std::string type = JsonString(value.type_name());
    const auto typed = [&](absl::string_view kind, absl::string_view what) {
      return absl::StrCat("[\"", kind, "\", ", type, ", ", what, "]");
    };
    switch (value.kind()) {
      case Kind::kNone:
        return absl::StrCat("[\"none\", ", type, "]");
      case Kind::kBool:
        return typed("bool", value.bool_value() ? "true" : "false");
      case Kind::kInt:
        return typed("int", absl::StrCat(value.int_value()));
      case Kind::kBigInt:
        return typed("bigint", Hex(value.string_value()));
      case Kind::kFloat:
        return typed("float", Float(value.float_value()));
      case Kind::kComplex:
        return typed("complex",
                     absl::StrCat("[", Float(value.float_value()), ", ",
                                  Float(value.imaginary_value()), "]"));
      case Kind::kString:
        return typed("string", JsonString(value.string_value()));
      case Kind::kBytes:
        return typed("bytes", Hex(value.string_value()));
      case Kind::kTuple:
        return typed("tuple", Items(value));
      case Kind::kList:
        return typed("list", Items(value));
      case Kind::kDict:
        return typed("dict", Entries(value));
      case Kind::kSet:
        return typed("set", Items(value));
      case Kind::kTensor:
        return typed("tensor", Tensor(value.tensor()));
      case Kind::kDtype:
        return typed("dtype", JsonString(value.string_value()));
      case Kind::kDevice:
        return typed("device", JsonString(value.string_value()));
      case Kind::kOpaque:
        return typed("opaque", Items(value));
    }
    return "";
  }

 private:
  static std::string Hex(absl::string_view bytes) {
    return JsonString(absl::BytesToHexString(bytes));
  }

  static std::string Float(double value) {
    return JsonString(absl::StrFormat("%a", value));
  }

  std::string Items(const io::PthValue& value) {
    std::vector<std::string> items;
    for (int64_t i = 0; i < value.size(); ++i) {
      items.push_back(Print(value.item(i)));
    }
    return absl::StrCat("[", absl::StrJoin(items, ", "), "]");
  }

  std::string Entries(const io::PthValue& value) {
    std::vector<std::string> entries;
    for (int64_t i = 0; i < value.size(); ++i) {
      entries.push_back(absl::StrCat("[", Print(value.key(i)), ", ",
                                     Print(value.value(i)), "]"));
    }
    return absl::StrCat("[", absl::StrJoin(entries, ", "), "]");
  }

  // Storages have numbers in the order in which they are met.
  std::string Tensor(const at::Tensor& tensor) {
    const size_t storage =
        storages_
            .try_emplace(tensor.storage().unsafeGetStorageImpl(),
                         storages_.size())
            .first->second;
    const at::Tensor plain = tensor.resolve_conj().resolve_neg().contiguous();
    const uint32_t crc = io::Crc32(
        {static_cast<const char*>(plain.const_data_ptr()), plain.nbytes()});
    return absl::StrCat(
        "{\"dtype\": \"", c10::toString(tensor.scalar_type()),
        "\", \"size\": [", absl::StrJoin(tensor.sizes(), ", "),
        "], \"stride\": [", absl::StrJoin(tensor.strides(), ", "),
        "], \"offset\": ", tensor.storage_offset(), ", \"storage\": ", storage,
        ", \"conj\": ", tensor.is_conj() ? "true" : "false",
        ", \"neg\": ", tensor.is_neg() ? "true" : "false", ", \"crc\": ", crc,
        "}");
  }

  std::map<const void*, size_t> storages_;
};

// A line of /proc/self/status. Not getrusage's peak: that is kept over exec.
int64_t StatusKib(const std::string& name) {
  std::ifstream status("/proc/self/status");
  std::string word;
  int64_t kib = 0;
  while (status >> word) {
    if (word == name + ":") status >> kib;
  }
  return kib;
}

absl::Status Run(const std::string& path, const io::PthOptions& options,
                 bool quiet) {
  std::ofstream("/proc/self/clear_refs") << 5;  // The peak starts from here.
  const int64_t before = StatusKib("VmRSS");
  const absl::Time start = absl::Now();
  const absl::StatusOr<io::PthFile> file =
      io::PthFile::Read(io::Env::Posix(), path, options);
  const double milliseconds = absl::ToDoubleMilliseconds(absl::Now() - start);
  const int64_t needed = StatusKib("VmHWM") - before;
  if (file.ok() && !quiet) {
    std::printf("{\"verified\": %s, \"root\": %s}\n",
                file->verified() ? "true" : "false",
                Printer().Print(file->root()).c_str());
  }
  std::printf("%lld %.1f\n", static_cast<long long>(needed), milliseconds);
  return file.status();
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  grapnel::io::PthOptions options;
  bool quiet = false;
  std::string path;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--foreign") {
      options.allow_foreign = true;
    } else if (argument == "--quiet") {
      quiet = true;
    } else {
      path = argument;
    }
  }
  const absl::Status status = grapnel::Run(path, options, quiet);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
