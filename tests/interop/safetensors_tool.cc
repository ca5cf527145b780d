// The C++ side of safetensors_read_test.py.
//
//   safetensors_tool write FILE   writes the tensors that the test expects
//   safetensors_tool dump FILE    prints "NAME DTYPE [SHAPE] HEX" for each
//   tensor

#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/env.h"
#include "grapnel/io/safetensors.h"

namespace grapnel {
namespace {

struct Dtype {
  const char* name;
  c10::ScalarType type;
};

constexpr Dtype kDtypes[] = {
    {"BOOL", at::kBool},
    {"U8", at::kByte},
    {"I8", at::kChar},
    {"U16", at::kUInt16},
    {"I16", at::kShort},
    {"U32", at::kUInt32},
    {"I32", at::kInt},
    {"U64", at::kUInt64},
    {"I64", at::kLong},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"F32", at::kFloat},
    {"F64", at::kDouble},
    {"F8_E4M3", at::kFloat8_e4m3fn},
    {"F8_E5M2", at::kFloat8_e5m2},
};

absl::Status Write(const std::string& path) {
  TensorMap tensors;
  for (const Dtype& dtype : kDtypes) {
    // 0, 1, 2, ... in that dtype; of BOOL 0, 1, 1, ...
    GRAPNEL_RETURN_IF_ERROR(
        tensors.Add(absl::StrCat("values/", dtype.name),
                    ops::arange(6, at::kFloat).to(dtype.type).view({2, 3})));
  }
  const at::Tensor matrix = ops::arange(6, at::kFloat).view({2, 3});
  GRAPNEL_RETURN_IF_ERROR(tensors.Add("transposed", matrix.t()));
  GRAPNEL_RETURN_IF_ERROR(
      tensors.Add("scalar", matrix.select(0, 1).select(0, 2)));
  GRAPNEL_RETURN_IF_ERROR(
      tensors.Add("empty", ops::empty({0, 4}, at::TensorOptions(at::kDouble))));
  GRAPNEL_RETURN_IF_ERROR(tensors.Add("a\"\\\xc3\xa9", matrix));
  return io::WriteSafetensors(io::Env::Posix(), path, tensors).status();
}

absl::Status Dump(const std::string& path) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<io::RandomAccessFile> file,
                           io::Env::Posix().NewRandomAccessFile(path));
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<io::SafetensorsEntry> entries,
                           io::ReadSafetensorsHeader(*file, path));
  GRAPNEL_ASSIGN_OR_RETURN(const TensorMap tensors,
                           io::ReadSafetensors(io::Env::Posix(), path));
  for (const io::SafetensorsEntry& entry : entries) {
    const at::Tensor* const tensor = tensors.Find(entry.name);
    GRAPNEL_RET_CHECK(tensor != nullptr);
    const absl::string_view bytes(
        static_cast<const char*>(tensor->const_data_ptr()), tensor->nbytes());
    std::printf("%s %s [%s] %s\n", entry.name.c_str(), entry.dtype.c_str(),
                absl::StrJoin(tensor->sizes(), ",").c_str(),
                absl::BytesToHexString(bytes).c_str());
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  const std::string command = argc == 3 ? argv[1] : "";
  absl::Status status =
      absl::InvalidArgumentError("usage: safetensors_tool write|dump FILE");
  if (command == "write") status = grapnel::Write(argv[2]);
  if (command == "dump") status = grapnel::Dump(argv[2]);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
