// What the names and calls in a pickle of torch.save mean: tensors, storages,
// containers, and nothing else.

#ifndef GRAPNEL_IO_PTH_OBJECTS_H_
#define GRAPNEL_IO_PTH_OBJECTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "c10/core/ScalarType.h"
#include "grapnel/io/pickle_reader.h"
#include "grapnel/io/pickle_tree.h"

namespace grapnel {
namespace io {

// A block of bytes that the file holds beside its pickle.
struct PthStorage {
  PickleId key = 0;  // A kString: "0".
  int64_t num_bytes = 0;
  int64_t item_size = 1;  // Of what the pickle says it is made of.
  bool is_bool = false;   // A tensor of bool is a view of it.
};

// A view of a storage. All of it lies inside the storage's num_bytes.
struct PthTensor {
  uint32_t storage = 0;  // Index.
  c10::ScalarType dtype = c10::ScalarType::Undefined;
  bool conj = false;
  bool neg = false;
  int64_t offset = 0;  // In elements.
  PickleId sizes = 0;  // kTuples of kInts.
  PickleId strides = 0;
};

// What torch.save has `function`, by its full name, make, "a sparse tensor" for
// example, if that is a tensor that isn't a view of a storage; else null.
const char* UnreadTensor(absl::string_view function);

// Both forms of file. `number` of a kTensor or kStorage node is an index of
// what is below. Thread-compatible.
class PthObjects final : public PickleObjects {
 public:
  // No storage may have more than `max_storage_size` bytes. `tree` outlives
  // this.
  PthObjects(PickleTree& tree, bool allow_foreign, int64_t max_storage_size)
      : tree_(tree),
        allow_foreign_(allow_foreign),
        max_storage_size_(max_storage_size) {}

  absl::StatusOr<PickleId> Global(absl::string_view module,
                                  absl::string_view name) override;
  absl::StatusOr<PickleId> Call(PickleId callable, PickleId arguments) override;
  absl::StatusOr<PickleId> Persistent(PickleId id) override;
  absl::Status SetState(PickleId object, PickleId state) override;

  const std::vector<PthStorage>& storages() const { return storages_; }
  std::optional<uint32_t> StorageOf(absl::string_view key) const;  // Index.
  std::vector<PthTensor> TakeTensors() { return std::move(tensors_); }

  // Bytes used beside the tree, about.
  size_t memory_size() const override;

 private:
  // What a kStorage node is: a storage, or of old files a part of one.
  struct StorageView {
    uint32_t storage = 0;
    c10::ScalarType dtype = c10::ScalarType::Undefined;  // Unless it has none.
    int64_t begin = 0;                                   // In bytes.
    int64_t num_bytes = 0;
  };

  using Arguments = absl::Span<const PickleId>;

  absl::StatusOr<PickleId> CallKnown(PickleId callable, Arguments arguments);
  absl::StatusOr<PickleId> Tensor(int version, Arguments arguments);
  absl::StatusOr<PickleId> TensorOfType(Arguments arguments);
  absl::StatusOr<PickleId> Parameter(Arguments arguments);
  absl::StatusOr<PickleId> OrderedDict(PickleTypeId type, Arguments arguments);
  absl::StatusOr<PickleId> Counter(PickleTypeId type, Arguments arguments);
  absl::StatusOr<PickleId> DefaultDict(PickleTypeId type, Arguments arguments);
  absl::StatusOr<PickleId> Set(PickleTypeId type, Arguments arguments);
  absl::StatusOr<PickleId> Bytes(PickleTypeId type, Arguments arguments);
  absl::StatusOr<PickleId> Complex(Arguments arguments);
  absl::StatusOr<PickleId> Device(Arguments arguments);
  absl::StatusOr<PickleId> Layout(PickleTypeId type, Arguments arguments);
  absl::StatusOr<PickleId> Size(PickleTypeId type, Arguments arguments);

  absl::Status SetMetadata(PickleId metadata, PthTensor& tensor) const;
  absl::Status CheckExtent(const StorageView& view,
                           const PthTensor& tensor) const;
  absl::Status CheckInts(PickleId tuple, absl::string_view what) const;
  absl::Status Expect(PickleId node, PickleKind kind,
                      absl::string_view what) const;
  absl::StatusOr<uint32_t> FindStorage(const PthStorage& storage);
  absl::Status TakePart(PickleId part, int64_t item_size,
                        StorageView& view) const;

  PickleTree& tree_;
  const bool allow_foreign_;
  const int64_t max_storage_size_;
  std::vector<PthStorage> storages_;
  absl::flat_hash_map<std::string, uint32_t> storage_by_key_;
  std::vector<StorageView> views_;
  std::vector<PthTensor> tensors_;
};

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_PTH_OBJECTS_H_
