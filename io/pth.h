// Files of torch.save (.pth, .pt, .ckpt), read without running anything.
//
// Example:
//
//   io::Env& env = io::Env::Posix();
//   if (!env.FileExists("resnet50.pth")) return absl::OkStatus();
//   GRAPNEL_ASSIGN_OR_RETURN(const io::PthFile file,
//                            io::PthFile::Read(env, "resnet50.pth"));
//   const io::PthValue root = file.root();
//   TensorMap weights;
//   for (int64_t i = 0; i < root.size(); ++i) {
//     if (root.value(i).kind() != io::PthValue::Kind::kTensor) continue;
//     GRAPNEL_RETURN_IF_ERROR(
//         weights.Add(std::string(root.key(i).string_value()),
//                     root.value(i).tensor()));
//   }

#ifndef GRAPNEL_IO_PTH_H_
#define GRAPNEL_IO_PTH_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "ATen/core/Tensor.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/io/env.h"

namespace grapnel {
namespace io {

struct PthContents;

// A value of Python's in a PthFile, which has to outlive it. Cheap to copy;
// safe to use from many threads. Values form a tree: one that Python holds in
// two places is seen in both; nothing is deeper than 100 levels.
class PthValue {
 public:
  enum class Kind {
    kNone,
    kBool,
    kInt,
    kBigInt,
    kFloat,
    kComplex,
    kString,
    kBytes,
    kTuple,
    kList,
    kDict,
    kSet,
    kTensor,
    kDtype,
    kDevice,
    kOpaque,
  };

  Kind kind() const;

  // What the type is called: "dict", "collections.OrderedDict", "torch.Size",
  // "torch.Tensor" also of parameters, ...
  absl::string_view type_name() const;

  // Of a value of another kind: false, 0, "" and an undefined tensor.
  bool bool_value() const;
  int64_t int_value() const;       // kInt, kBool.
  double float_value() const;      // kFloat, kInt, kBool; kComplex: real part.
  double imaginary_value() const;  // kComplex.

  // kString: UTF-8. kBytes. kDevice: "cuda:1". kDtype: "float32". kBigInt, one
  // beyond 64 bits: two's complement, little-endian.
  absl::string_view string_value() const;

  // kTensor: on the CPU, without grad, of any dtype and strides. Tensors that
  // share storage in the file share it here, also with those of other calls.
  at::Tensor tensor() const;

  // Items of a tuple, list or set; entries of a dict, each key once, in
  // Python's order. `i` is in [0, size()).
  //
  // kOpaque has up to three items: the tuple of arguments that it was made
  // with; its state, or kNone; what was put into it, a list or a dict. None if
  // it is the name of a type or a function itself.
  int64_t size() const;
  PthValue item(int64_t i) const;
  PthValue key(int64_t i) const;
  PthValue value(int64_t i) const;

  // The value of a dict at a string key; nullopt if it hasn't the key or is no
  // dict. Looks at every key.
  std::optional<PthValue> Find(absl::string_view key) const;

 private:
  friend class PthFile;
  PthValue(const PthContents* contents, uint32_t id)
      : contents_(contents), id_(id) {}

  const PthContents* contents_;
  uint32_t id_;
};

struct PthOptions {
  // What torch.load(weights_only=True) would refuse, types of other packages
  // above all, and tensors that aren't read, sparse ones for example, become
  // kOpaque instead of an error. Nothing is ever called.
  bool allow_foreign = false;
};

// A file that was read. Thread-compatible.
class PthFile {
 public:
  // Reads a file of torch.save: ZIP, or what torch wrote before 1.6. Tensors of
  // any device come to the CPU, into memory of their own; each storage is read
  // once. Never trusts the file, and needs at most 64 MiB and 1.1 times its
  // size of memory. Messages name `path`, and where known the record, the byte
  // and the type.
  //   kInvalidArgument: not a file of torch.save, one that contradicts itself,
  //     or one with a type that isn't allowed.
  //   kDataLoss: damaged (a CRC is wrong), or cut off.
  //   kUnimplemented: TorchScript, tar files (torch before 0.1.10), compressed
  //     or big-endian ones, pickle protocols but 2; sparse, quantized, nested
  //     and meta tensors.
  //   kResourceExhausted: larger than memory or than the bound above.
  //   Codes of Env.
  static absl::StatusOr<PthFile> Read(Env& env, const std::string& path,
                                      const PthOptions& options = {});

  PthFile(PthFile&&);
  PthFile& operator=(PthFile&&);
  ~PthFile();

  PthValue root() const;

  // Every record had a CRC and it was right. False for a writer without CRCs
  // (torch.serialization.set_crc32_options), and for files of before torch 1.6.
  bool verified() const;

 private:
  explicit PthFile(std::unique_ptr<const PthContents> contents);

  std::unique_ptr<const PthContents> contents_;
};

// Whether a file that begins with these bytes, 16 or the whole file, may be one
// of torch.save: ZIP, or legacy.
bool LooksLikePth(absl::string_view first_bytes);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_PTH_H_
