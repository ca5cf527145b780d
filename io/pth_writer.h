// Files as torch.save writes them, which torch.load(weights_only=True) reads,
// mapped too.
//
// Example:
//
//   io::Env& env = io::Env::Posix();
//   GRAPNEL_ASSIGN_OR_RETURN(const std::unique_ptr<io::PthWriter> writer,
//                            io::PthWriter::Create(env, "fc.pth"));
//   writer->BeginDict();
//   writer->String("epoch");
//   writer->Int(12);
//   writer->String("state_dict");
//   writer->BeginOrderedDict();
//   writer->String("fc.weight");
//   writer->Tensor(torch::rand({2, 3}));
//   writer->End();
//   writer->End();
//   GRAPNEL_RETURN_IF_ERROR(writer->Finish());

#ifndef GRAPNEL_IO_PTH_WRITER_H_
#define GRAPNEL_IO_PTH_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/io/env.h"
#include "grapnel/io/pickle_writer.h"

namespace grapnel {
namespace io {

// Writes one value of Python's: calls give it from left to right. Nothing is
// copied before Finish: tensors that were given must not change until then.
// The first error makes all later calls do nothing, and Finish returns it.
// Thread-compatible.
class PthWriter {
 public:
  // A file that takes the place of `path` when Finish returns OK. Until then it
  // has a hidden name beside it. `env` outlives the writer.
  static absl::StatusOr<std::unique_ptr<PthWriter>> Create(
      Env& env, const std::string& path);

  PthWriter(const PthWriter&) = delete;
  PthWriter& operator=(const PthWriter&) = delete;

  // Without Finish nothing is left.
  ~PthWriter();

  // What is given until the End that belongs to it. In a dict keys, each a
  // String or an Int, and their values by turns; of a key that comes twice
  // readers keep the last value. At most 100 may be open at a time: PthFile
  // reads no more.
  void BeginDict();
  void BeginOrderedDict();
  void BeginList();
  void BeginTuple();
  void End();

  void None();
  void Bool(bool value);
  void Int(int64_t value);
  void Float(double value);
  void String(absl::string_view value);  // UTF-8.

  // Of any device; it is loaded to the CPU, without requires_grad. Strides are
  // kept. Tensors that share storage and have one dtype share it in the file:
  // tied weights are written once. A storage is written whole, as torch.save
  // does, unless the only view of it uses less than half: then that alone.
  void Tensor(const at::Tensor& tensor);

  // Writes the file and syncs it and its directory. Tensors of other devices
  // are copied to the CPU one storage at a time. After an error the file that
  // stood at the path stands, and nothing else is left; if all but the last
  // step, the directory's sync, was done, the new one stands.
  //   kInvalidArgument: a tensor that is undefined, sparse, nested, quantized
  //     or without data, or of a dtype that Python doesn't have; a string that
  //     is not UTF-8. The message says where: ["state_dict"]["fc.weight"].
  //   kFailedPrecondition: calls that make no value: an End too few or too
  //     many, a key without a value, two values; too many that are open.
  absl::Status Finish();

 private:
  enum class Kind { kDict, kOrderedDict, kList, kTuple };

  enum class MayBeKey { kNo, kYes };

  // A container that was begun.
  struct Container {
    Kind kind;
    int64_t num_items = 0;  // Begun; in a dict keys and values.
    std::string key;        // In a dict the last one, for messages.
  };
  struct Storage;
  struct View;

  PthWriter(Env& env, std::string path, std::string temporary,
            std::unique_ptr<WritableFile> file);

  // Makes room for one more value, `what` for messages; false after an error.
  bool Next(absl::string_view what, MayBeKey may_be_key = MayBeKey::kNo);
  void Begin(Kind kind, absl::string_view what);
  bool AtKey() const;              // Whether the current value is a key.
  std::string Place() const;       // ["state_dict"][3], of the current value.
  void Fail(absl::Status status);  // At the current value.
  void Misuse(absl::string_view what);
  absl::Status AddTensor(const at::Tensor& tensor);
  absl::Status Write();

  Env& env_;
  const std::string path_;
  const std::string temporary_;
  std::unique_ptr<WritableFile> file_;  // Null after Finish.
  absl::Status status_;                 // The first error.
  bool has_value_ = false;
  std::vector<Container> open_;
  PickleWriter pickle_;
  std::vector<View> views_;
  std::vector<Storage> storages_;
  // By the storage and the dtype that it is seen as: a storage that is loaded
  // has one.
  absl::flat_hash_map<std::pair<const void*, c10::ScalarType>, size_t>
      storage_index_;
};

// An OrderedDict of tensors, as torch.save(model.state_dict(), path) writes.
// Errors as PthWriter's.
absl::Status WritePthWeights(Env& env, const std::string& path,
                             const TensorMap& tensors);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_PTH_WRITER_H_
