// The values that a pickle holds, in little memory: a node has 16 bytes, and
// numbers in place of pointers.

#ifndef GRAPNEL_IO_PICKLE_TREE_H_
#define GRAPNEL_IO_PICKLE_TREE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace grapnel {
namespace io {

using PickleId = uint32_t;      // Of a node in its tree.
using PickleTypeId = uint16_t;  // Of a type's name; 0: the kind's usual one.

enum class PickleKind : uint8_t {
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
  kTensor,  // `number` is its owner's.
  kDtype,
  kDevice,
  kOpaque,
  kGlobal,   // The name of a type or function; `number` is its owner's.
  kStorage,  // `number` is its owner's.
  kSpent,    // A text that was decoded in its place.
};

// Nodes and their children; those of a dict are its keys and values in turn.
// While it is being built it may be any graph; Finish makes sure that it is a
// tree but for nodes that are children of several. Thread-compatible.
class PickleTree {
 public:
  PickleTree();
  PickleTree(PickleTree&&) = default;
  PickleTree& operator=(PickleTree&&) = default;

  // The bytes that the pickle is in: texts are parts of it. At most 4 GiB.
  std::string source;

  // --- Making nodes. Arguments that are ids are this tree's.

  PickleId AddNone() { return kNoneId; }
  PickleId AddBool(bool value) { return value ? kTrueId : kFalseId; }
  PickleId AddInt(int64_t value);
  PickleId AddFloat(double value);
  PickleId AddComplex(double real, double imaginary);
  // kString, kBytes, kBigInt: `size` bytes of `source`.
  PickleId AddSourceText(PickleKind kind, size_t begin, size_t size);
  // The same, and kDtype, kDevice, of a copy of `text`.
  PickleId AddText(PickleKind kind, PickleTypeId type, absl::string_view text);
  PickleId AddTuple(PickleTypeId type, absl::Span<const PickleId> items);
  // The tuple's items under another type.
  PickleId AddSameTuple(PickleTypeId type, PickleId tuple);
  // The text's bytes under another type.
  PickleId AddSameText(PickleKind kind, PickleTypeId type, PickleId text);
  // kList, kDict, kSet: empty.
  PickleId AddContainer(PickleKind kind, PickleTypeId type);
  PickleId AddOpaque(PickleTypeId type, PickleId arguments);
  PickleId AddNamed(PickleKind kind, PickleTypeId type, uint64_t number);

  // Bytes from a string of code points below 256. A long one is decoded in its
  // place, and must not be used again. kInvalidArgument: another code point.
  absl::StatusOr<PickleId> AddLatin1(PickleTypeId type, PickleId string);

  // Puts children into a list, dict or set; into a kOpaque the same. A dict's
  // come in pairs. kInvalidArgument if `node` can't have such.
  absl::Status Append(PickleId node, absl::Span<const PickleId> items);
  absl::Status SetItems(PickleId node, absl::Span<const PickleId> entries);

  // A kOpaque's.
  void SetState(PickleId opaque, PickleId state);

  // A small number for a type's name. kResourceExhausted: more than 10,000.
  absl::StatusOr<PickleTypeId> Intern(absl::string_view name);

  // Bytes used, about. Grows with every call above by no more than what it is
  // given, but for AddSameTuple's.
  size_t memory_size() const;

  // --- When all are made.

  // Checks what hangs below `root`: no cycles, at most 100 levels, at most 10
  // million values where each that is shared counts every time, dicts' keys can
  // be hashed, and, unless `allow_names`, there is no kGlobal and no kStorage.
  // Takes entries and items of sets away that come twice.
  // kInvalidArgument, kResourceExhausted (too many).
  absl::Status Finish(PickleId root, bool allow_names);

  PickleKind kind(PickleId id) const { return nodes_[id].kind; }
  absl::string_view type_name(PickleId id) const;
  PickleTypeId type(PickleId id) const { return nodes_[id].type; }
  bool bool_value(PickleId id) const { return nodes_[id].number != 0; }
  int64_t int_value(PickleId id) const {
    return static_cast<int64_t>(nodes_[id].number);
  }
  uint64_t number(PickleId id) const { return nodes_[id].number; }
  double float_value(PickleId id) const;
  std::pair<double, double> complex_value(PickleId id) const;
  absl::string_view text(PickleId id) const;

  // Of a kOpaque: its arguments, state and content, as far as there are some.
  absl::Span<const PickleId> children(PickleId id) const;

 private:
  static constexpr PickleId kNoneId = 0;
  static constexpr PickleId kFalseId = 1;
  static constexpr PickleId kTrueId = 2;

  struct Node {
    PickleKind kind = PickleKind::kNone;
    PickleTypeId type = 0;
    uint32_t size = 0;  // Of a text, tuple or kOpaque.
    // A value; or where text, items, entries begin; or somebody else's.
    uint64_t number = 0;
  };
  static_assert(sizeof(Node) == 16, "one byte of a pickle can make one");

  struct Key;

  PickleId Add(PickleKind kind, PickleTypeId type, uint32_t size,
               uint64_t number);
  std::vector<PickleId>& MutableChildren(PickleId id);
  PickleId OpaqueContent(PickleId opaque, PickleKind kind);
  absl::Status CheckValue(PickleId id, bool allow_names) const;
  absl::StatusOr<std::vector<PickleId>> CheckGraph(PickleId root,
                                                   bool allow_names) const;
  bool IsHashable(PickleId id) const;
  absl::Status DropRepeated(PickleId container);

  std::deque<Node> nodes_;
  std::vector<PickleId> items_;                   // Of tuples.
  std::deque<std::vector<PickleId>> containers_;  // Those with children.
  std::vector<std::array<PickleId, 3>> opaques_;
  std::vector<std::pair<double, double>> complexes_;
  std::string copies_;  // Texts that aren't in `source`.
  size_t containers_size_ = 0;
  size_t names_size_ = 0;   // With what refers to them.
  size_t latin1_size_ = 0;  // Decoded so far.
  std::vector<std::string> names_;
  absl::flat_hash_map<std::string, PickleTypeId> type_ids_;
};

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_PICKLE_TREE_H_
