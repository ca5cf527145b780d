// The C++ side of pth_write_test.py.
//
//   pth_write_tool values FILE      numbers, strings, containers
//   pth_write_tool dtypes FILE      a tensor of each dtype
//   pth_write_tool layouts FILE     views, shared storage, 0-dim, empty
//   pth_write_tool weights FILE     weights of a module that the test has
//   pth_write_tool many FILE N      N tensors of one element
//   pth_write_tool large FILE GIB   two tensors, GIB and 8 bytes in all

#include <cstdint>
#include <cstdio>
#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/env.h"
#include "grapnel/io/pth_writer.h"

namespace grapnel {
namespace {

void WriteValues(io::PthWriter& w) {
  w.BeginDict();
  w.String("ints");
  w.BeginList();
  for (const int64_t value :
       {int64_t{0}, int64_t{255}, int64_t{256}, int64_t{65535}, int64_t{65536},
        int64_t{-1}, int64_t{2147483647}, int64_t{-2147483648},
        int64_t{2147483648}, int64_t{-2147483649}, int64_t{1} << 40,
        std::numeric_limits<int64_t>::max(),
        std::numeric_limits<int64_t>::min()}) {
    w.Int(value);
  }
  w.End();
  w.String("floats");
  w.BeginTuple();
  w.Float(1e-3);
  w.Float(-0.0);
  w.Float(std::numeric_limits<double>::infinity());
  w.Float(-std::numeric_limits<double>::infinity());
  w.Float(std::numeric_limits<double>::quiet_NaN());
  w.Float(std::numeric_limits<double>::denorm_min());
  w.End();
  w.String("strings");
  w.BeginList();
  w.String("");
  w.String("r\xc3\xa9sum\xc3\xa9 \xe2\x98\x83 \xf0\x9f\x98\x80");
  w.String(std::string("a\0b\n", 4));
  w.String("ints");
  w.End();
  w.String("constants");
  w.BeginTuple();
  w.None();
  w.Bool(true);
  w.Bool(false);
  w.End();
  w.Int(-5);
  w.BeginOrderedDict();
  w.String("z");
  w.BeginDict();
  w.End();
  w.String("a");
  w.BeginList();
  w.End();
  w.String("m");
  w.BeginTuple();
  w.End();
  w.String("o");
  w.BeginOrderedDict();
  w.End();
  w.End();
  w.End();
}

struct Dtype {
  const char* name;
  c10::ScalarType type;
};

constexpr Dtype kDtypes[] = {
    {"float32", at::kFloat},
    {"float64", at::kDouble},
    {"float16", at::kHalf},
    {"bfloat16", at::kBFloat16},
    {"int64", at::kLong},
    {"int32", at::kInt},
    {"int16", at::kShort},
    {"int8", at::kChar},
    {"uint8", at::kByte},
    {"bool", at::kBool},
    {"complex32", at::kComplexHalf},
    {"complex64", at::kComplexFloat},
    {"complex128", at::kComplexDouble},
    {"uint16", at::kUInt16},
    {"uint32", at::kUInt32},
    {"uint64", at::kUInt64},
    {"float8_e4m3fn", at::kFloat8_e4m3fn},
    {"float8_e4m3fnuz", at::kFloat8_e4m3fnuz},
    {"float8_e5m2", at::kFloat8_e5m2},
    {"float8_e5m2fnuz", at::kFloat8_e5m2fnuz},
    {"float8_e8m0fnu", at::kFloat8_e8m0fnu},
};

// Of each the bytes 0, 1, 2, ..., and of bool 0, 1, 0, ...: shape (2, 3), and
// its transposed view.
void WriteDtypes(io::PthWriter& w) {
  w.BeginDict();
  for (const Dtype& dtype : kDtypes) {
    at::Tensor bytes = ops::arange(
        6 * static_cast<int64_t>(c10::elementSize(dtype.type)), at::kByte);
    if (dtype.type == at::kBool) bytes = bytes.bitwise_and(1);
    const at::Tensor matrix = bytes.view(dtype.type).view({2, 3});
    w.String(dtype.name);
    w.BeginTuple();
    w.Tensor(matrix);
    w.Tensor(matrix.t());
    w.End();
  }
  w.End();
}

void WriteLayouts(io::PthWriter& w) {
  const at::Tensor base = ops::arange(24, at::kFloat).view({4, 6});
  const at::Tensor other = ops::arange(1000, at::kInt);
  w.BeginDict();
  const auto add = [&](const char* name, const at::Tensor& tensor) {
    w.String(name);
    w.Tensor(tensor);
  };
  add("base", base);
  add("tied", base);
  add("transposed", base.t());
  add("column", base.select(1, 2));
  add("block", base.slice(0, 1, 3).slice(1, 2, 5));
  add("steps", base.slice(1, 0, 6, 2));
  add("ints", base.view(at::kInt));
  add("lone", other.slice(0, 10, 20));
  add("lone steps", ops::arange(1000, at::kInt).slice(0, 0, 1000, 100));
  add("expanded", ops::full({1}, 7, at::kFloat).expand({3, 4}));
  add("channels last", ops::arange(24, at::kFloat)
                           .view({1, 2, 3, 4})
                           .to(c10::MemoryFormat::ChannelsLast));
  add("scalar", ops::full({}, 2.5, at::kDouble));
  add("scalar of base", base.select(0, 1).select(0, 1));
  add("empty", ops::empty({0, 4}, at::TensorOptions(at::kHalf)));
  add("empty of base", base.slice(0, 2, 2));
  add("requires grad", ops::ones({2}).requires_grad_());
  add("conjugate",
      ops::full({2}, c10::complex<double>(1, 2), at::kComplexFloat).conj());
  w.End();
}

absl::Status WriteWeights(const std::string& path) {
  // Of Sequential(Linear(4, 3), BatchNorm1d(3), Linear(3, 4)), whose last
  // weight is the first's, transposed: tied.
  TensorMap weights;
  const at::Tensor tied = ops::arange(12, at::kFloat).view({3, 4});
  const std::pair<const char*, at::Tensor> all[] = {
      {"0.weight", tied},
      {"0.bias", ops::arange(3, at::kFloat)},
      {"1.weight", ops::full({3}, 2, at::kFloat)},
      {"1.bias", ops::full({3}, 3, at::kFloat)},
      {"1.running_mean", ops::full({3}, 4, at::kFloat)},
      {"1.running_var", ops::full({3}, 5, at::kFloat)},
      {"1.num_batches_tracked", ops::full({}, 6, at::kLong)},
      {"2.weight", tied.t()},
      {"2.bias", ops::arange(4, at::kFloat)},
  };
  for (const auto& [name, tensor] : all) {
    GRAPNEL_RETURN_IF_ERROR(weights.Add(name, tensor));
  }
  return io::WritePthWeights(io::Env::Posix(), path, weights);
}

void WriteMany(io::PthWriter& w, int64_t n) {
  w.BeginList();
  for (int64_t i = 0; i < n; ++i) w.Tensor(ops::full({1}, i, at::kInt));
  w.End();
}

void WriteLarge(io::PthWriter& w, int64_t gib) {
  w.BeginDict();
  w.String("large");
  w.Tensor(ops::full({gib << 28}, 1.5, at::kFloat));
  w.String("small");
  w.Tensor(ops::full({1}, 7, at::kLong));
  w.End();
}

absl::Status Main(const std::string& command, const std::string& path,
                  int64_t n) {
  if (command == "weights") return WriteWeights(path);
  GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<io::PthWriter> writer,
                           io::PthWriter::Create(io::Env::Posix(), path));
  if (command == "values") WriteValues(*writer);
  if (command == "dtypes") WriteDtypes(*writer);
  if (command == "layouts") WriteLayouts(*writer);
  if (command == "many") WriteMany(*writer, n);
  if (command == "large") WriteLarge(*writer, n);
  return writer->Finish();
}

}  // namespace
}  // namespace grapnel

int main(int argc, char** argv) {
  int64_t n = 0;
  if (argc < 3 || argc > 4 || (argc == 4 && !absl::SimpleAtoi(argv[3], &n))) {
    std::fprintf(stderr, "usage: pth_write_tool COMMAND FILE [N]\n");
    return 1;
  }
  const absl::Status status = grapnel::Main(argv[1], argv[2], n);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return 1;
}
