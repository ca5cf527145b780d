#include "grapnel/io/pickle_tree.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>

#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/utf8.h"

namespace grapnel {
namespace io {
namespace {

constexpr size_t kMaxDepth = 100;
constexpr uint64_t kMaxValues = 10'000'000;
constexpr size_t kMaxNames = 10'000;
constexpr uint64_t kCopied = uint64_t{1} << 63;  // The text is in copies_.
constexpr size_t kBlockSize = 32;                // What malloc adds, at most.
// Strings that CPython shares are shorter: those may be needed again.
constexpr size_t kMaxCopiedLatin1 = 64;

const char* UsualName(PickleKind kind) {
  switch (kind) {
    case PickleKind::kNone:
      return "NoneType";
    case PickleKind::kBool:
      return "bool";
    case PickleKind::kInt:
    case PickleKind::kBigInt:
      return "int";
    case PickleKind::kFloat:
      return "float";
    case PickleKind::kComplex:
      return "complex";
    case PickleKind::kString:
    case PickleKind::kSpent:
      return "str";
    case PickleKind::kBytes:
      return "bytes";
    case PickleKind::kTuple:
      return "tuple";
    case PickleKind::kList:
      return "list";
    case PickleKind::kDict:
      return "dict";
    case PickleKind::kSet:
      return "set";
    case PickleKind::kTensor:
      return "torch.Tensor";
    case PickleKind::kDtype:
      return "torch.dtype";
    case PickleKind::kDevice:
      return "torch.device";
    case PickleKind::kOpaque:
    case PickleKind::kGlobal:
    case PickleKind::kStorage:
      break;
  }
  return "object";
}

bool IsContainer(PickleKind kind) {
  return kind == PickleKind::kList || kind == PickleKind::kDict ||
         kind == PickleKind::kSet;
}

bool IsNumber(PickleKind kind) {
  return kind == PickleKind::kBool || kind == PickleKind::kInt ||
         kind == PickleKind::kFloat;
}

}  // namespace

PickleTree::PickleTree() : names_(1) {
  Add(PickleKind::kNone, 0, 0, 0);
  Add(PickleKind::kBool, 0, 0, 0);
  Add(PickleKind::kBool, 0, 0, 1);
}

PickleId PickleTree::Add(PickleKind kind, PickleTypeId type, uint32_t size,
                         uint64_t number) {
  nodes_.push_back({kind, type, size, number});
  return static_cast<PickleId>(nodes_.size() - 1);
}

PickleId PickleTree::AddInt(int64_t value) {
  return Add(PickleKind::kInt, 0, 0, static_cast<uint64_t>(value));
}

PickleId PickleTree::AddFloat(double value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  return Add(PickleKind::kFloat, 0, 0, bits);
}

PickleId PickleTree::AddComplex(double real, double imaginary) {
  complexes_.emplace_back(real, imaginary);
  return Add(PickleKind::kComplex, 0, 0, complexes_.size() - 1);
}

PickleId PickleTree::AddSourceText(PickleKind kind, size_t begin, size_t size) {
  return Add(kind, 0, static_cast<uint32_t>(size), begin);
}

PickleId PickleTree::AddText(PickleKind kind, PickleTypeId type,
                             absl::string_view text) {
  const uint64_t begin = copies_.size();
  copies_.append(text.data(), text.size());
  return Add(kind, type, static_cast<uint32_t>(text.size()), begin | kCopied);
}

PickleId PickleTree::AddTuple(PickleTypeId type,
                              absl::Span<const PickleId> items) {
  const uint64_t begin = items_.size();
  items_.insert(items_.end(), items.begin(), items.end());
  return Add(PickleKind::kTuple, type, static_cast<uint32_t>(items.size()),
             begin);
}

PickleId PickleTree::AddSameTuple(PickleTypeId type, PickleId tuple) {
  return Add(PickleKind::kTuple, type, nodes_[tuple].size,
             nodes_[tuple].number);
}

PickleId PickleTree::AddSameText(PickleKind kind, PickleTypeId type,
                                 PickleId text) {
  return Add(kind, type, nodes_[text].size, nodes_[text].number);
}

PickleId PickleTree::AddContainer(PickleKind kind, PickleTypeId type) {
  return Add(kind, type, 0, 0);
}

PickleId PickleTree::AddOpaque(PickleTypeId type, PickleId arguments) {
  opaques_.push_back({arguments, kNoneId, kNoneId});
  return Add(PickleKind::kOpaque, type, 1, opaques_.size() - 1);
}

PickleId PickleTree::AddNamed(PickleKind kind, PickleTypeId type,
                              uint64_t number) {
  return Add(kind, type, 0, number);
}

absl::StatusOr<PickleId> PickleTree::AddLatin1(PickleTypeId type,
                                               PickleId string) {
  Node& node = nodes_[string];
  absl::string_view rest = text(string);
  latin1_size_ += rest.size();
  if (latin1_size_ > source.size()) {
    return absl::InvalidArgumentError("the same text is bytes over and over");
  }
  const bool is_ascii = std::none_of(rest.begin(), rest.end(), [](char c) {
    return static_cast<unsigned char>(c) >= 0x80;
  });
  if (is_ascii) return Add(PickleKind::kBytes, type, node.size, node.number);
  const bool in_place =
      node.size > kMaxCopiedLatin1 && (node.number & kCopied) == 0;
  std::string copy;
  char* const begin = in_place ? &source[node.number] : nullptr;
  size_t size = 0;
  while (!rest.empty()) {
    const std::optional<char32_t> point = TakeCodePoint(&rest);
    if (!point.has_value() || *point > 0xff) {
      return absl::InvalidArgumentError(
          absl::StrCat("text for bytes isn't Latin-1 behind character ", size));
    }
    // Never ahead of what was taken: each needs one byte at least.
    if (in_place) begin[size] = static_cast<char>(*point);
    if (!in_place) copy += static_cast<char>(*point);
    ++size;
  }
  if (!in_place) return AddText(PickleKind::kBytes, type, copy);
  node.kind = PickleKind::kSpent;
  return Add(PickleKind::kBytes, type, static_cast<uint32_t>(size),
             node.number);
}

std::vector<PickleId>& PickleTree::MutableChildren(PickleId id) {
  Node& node = nodes_[id];
  if (node.number == 0) {
    containers_.emplace_back();
    node.number = containers_.size();
  }
  return containers_[node.number - 1];
}

PickleId PickleTree::OpaqueContent(PickleId opaque, PickleKind kind) {
  std::array<PickleId, 3>& parts = opaques_[nodes_[opaque].number];
  if (parts[2] == kNoneId) parts[2] = AddContainer(kind, 0);
  nodes_[opaque].size = 3;
  return parts[2];
}

absl::Status PickleTree::Append(PickleId node,
                                absl::Span<const PickleId> items) {
  if (kind(node) == PickleKind::kOpaque) {
    node = OpaqueContent(node, PickleKind::kList);
  }
  if (kind(node) != PickleKind::kList && kind(node) != PickleKind::kSet) {
    return absl::InvalidArgumentError(
        absl::StrCat("appends to a ", type_name(node), ", which is no list"));
  }
  if (items.empty()) return absl::OkStatus();
  std::vector<PickleId>& children = MutableChildren(node);
  const size_t before = children.capacity();
  children.insert(children.end(), items.begin(), items.end());
  containers_size_ += (children.capacity() - before) * sizeof(PickleId);
  return absl::OkStatus();
}

absl::Status PickleTree::SetItems(PickleId node,
                                  absl::Span<const PickleId> entries) {
  if (kind(node) == PickleKind::kOpaque) {
    node = OpaqueContent(node, PickleKind::kDict);
  }
  if (kind(node) != PickleKind::kDict) {
    return absl::InvalidArgumentError(absl::StrCat(
        "sets an item of a ", type_name(node), ", which is no dict"));
  }
  if (entries.size() % 2 != 0) {
    return absl::InvalidArgumentError("a key of a dict without a value");
  }
  if (entries.empty()) return absl::OkStatus();
  std::vector<PickleId>& children = MutableChildren(node);
  const size_t before = children.capacity();
  children.insert(children.end(), entries.begin(), entries.end());
  containers_size_ += (children.capacity() - before) * sizeof(PickleId);
  return absl::OkStatus();
}

void PickleTree::SetState(PickleId opaque, PickleId state) {
  opaques_[nodes_[opaque].number][1] = state;
  nodes_[opaque].size = std::max(nodes_[opaque].size, uint32_t{2});
}

absl::StatusOr<PickleTypeId> PickleTree::Intern(absl::string_view name) {
  const auto found = type_ids_.find(name);
  if (found != type_ids_.end()) return found->second;
  if (names_.size() > kMaxNames) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", kMaxNames, " names of types"));
  }
  // Twice, in the list and in the map, each a block of memory of its own.
  constexpr size_t kEntrySize = sizeof(std::pair<std::string, PickleTypeId>);
  names_size_ += 2 * (name.size() + kBlockSize + kEntrySize);
  const auto id = static_cast<PickleTypeId>(names_.size());
  names_.emplace_back(name);
  type_ids_.emplace(name, id);
  return id;
}

size_t PickleTree::memory_size() const {
  // A container's vector is a block of memory of its own.
  return nodes_.size() * sizeof(Node) +
         containers_.size() * (sizeof(containers_[0]) + kBlockSize) +
         containers_size_ + names_size_ +
         items_.capacity() * sizeof(items_[0]) +
         opaques_.capacity() * sizeof(opaques_[0]) +
         complexes_.capacity() * sizeof(complexes_[0]) + copies_.capacity();
}

absl::string_view PickleTree::type_name(PickleId id) const {
  const Node& node = nodes_[id];
  return node.type == 0 ? absl::string_view(UsualName(node.kind))
                        : absl::string_view(names_[node.type]);
}

double PickleTree::float_value(PickleId id) const {
  const Node& node = nodes_[id];
  double value = 0;
  if (node.kind == PickleKind::kFloat) {
    std::memcpy(&value, &node.number, sizeof(value));
  } else if (IsNumber(node.kind)) {
    value = static_cast<double>(static_cast<int64_t>(node.number));
  } else if (node.kind == PickleKind::kComplex) {
    value = complex_value(id).first;
  }
  return value;
}

std::pair<double, double> PickleTree::complex_value(PickleId id) const {
  return complexes_[nodes_[id].number];
}

absl::string_view PickleTree::text(PickleId id) const {
  const Node& node = nodes_[id];
  switch (node.kind) {
    case PickleKind::kString:
    case PickleKind::kBytes:
    case PickleKind::kBigInt:
    case PickleKind::kDtype:
    case PickleKind::kDevice:
      break;
    default:
      return "";
  }
  const std::string& from = (node.number & kCopied) != 0 ? copies_ : source;
  return absl::string_view(from).substr(node.number & ~kCopied, node.size);
}

absl::Span<const PickleId> PickleTree::children(PickleId id) const {
  const Node& node = nodes_[id];
  if (node.kind == PickleKind::kTuple) {
    return absl::MakeConstSpan(items_).subspan(node.number, node.size);
  }
  if (node.kind == PickleKind::kOpaque) {
    return absl::MakeConstSpan(opaques_[node.number]).subspan(0, node.size);
  }
  if (IsContainer(node.kind) && node.number != 0) {
    return containers_[node.number - 1];
  }
  return {};
}

absl::Status PickleTree::CheckValue(PickleId id, bool allow_names) const {
  const PickleKind kind = nodes_[id].kind;
  if (kind == PickleKind::kSpent) {
    return absl::InvalidArgumentError("a text is also used as bytes");
  }
  if (!allow_names &&
      (kind == PickleKind::kGlobal || kind == PickleKind::kStorage)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", type_name(id), "\" itself is a value"));
  }
  return absl::OkStatus();
}

// All below `root` and itself, each once, children first.
absl::StatusOr<std::vector<PickleId>> PickleTree::CheckGraph(
    PickleId root, bool allow_names) const {
  struct Step {
    PickleId id;
    size_t next;  // Child.
  };
  enum class Mark : uint8_t { kNew, kOpen, kDone };
  std::vector<Mark> marks(nodes_.size(), Mark::kNew);
  // How much each unfolds to; only of the nodes that are done.
  std::vector<uint32_t> values(nodes_.size(), 1);
  std::vector<uint8_t> depths(nodes_.size(), 0);
  std::vector<PickleId> order;
  std::vector<Step> path = {{root, 0}};
  marks[root] = Mark::kOpen;
  while (!path.empty()) {
    const PickleId id = path.back().id;
    if (path.back().next == 0) {
      GRAPNEL_RETURN_IF_ERROR(CheckValue(id, allow_names));
    }
    const absl::Span<const PickleId> below = children(id);
    if (path.back().next < below.size()) {
      const PickleId child = below[path.back().next++];
      if (marks[child] == Mark::kOpen) {
        return absl::InvalidArgumentError(
            absl::StrCat("a ", type_name(child), " contains itself"));
      }
      if (marks[child] == Mark::kDone) continue;
      marks[child] = Mark::kOpen;
      path.push_back({child, 0});
      // A longer path through what is done already is found below.
      if (path.size() > kMaxDepth + 1) {
        return absl::InvalidArgumentError(
            absl::StrCat("values are nested more than ", kMaxDepth, " deep"));
      }
      continue;
    }
    uint64_t num_values = 1;
    size_t depth = 0;
    for (const PickleId child : below) {
      num_values += values[child];
      depth = std::max<size_t>(depth, depths[child] + 1);
    }
    if (depth > kMaxDepth) {
      return absl::InvalidArgumentError(
          absl::StrCat("values are nested more than ", kMaxDepth, " deep"));
    }
    if (num_values > kMaxValues) {
      return absl::ResourceExhaustedError(
          absl::StrCat("unfolds to more than ", kMaxValues, " values"));
    }
    values[id] = static_cast<uint32_t>(num_values);
    depths[id] = static_cast<uint8_t>(depth);
    marks[id] = Mark::kDone;
    order.push_back(id);
    path.pop_back();
  }
  return order;
}

// A key as Python compares it: 1, 1.0 and True are one.
struct PickleTree::Key {
  const PickleTree* tree;
  PickleId id;

  template <typename H>
  friend H AbslHashValue(H h, const Key& key) {
    const PickleTree& tree = *key.tree;
    const PickleKind kind = tree.kind(key.id);
    if (IsNumber(kind)) {
      const std::optional<int64_t> integer = Integer(tree, key.id);
      if (integer.has_value()) return H::combine(std::move(h), *integer);
      const double value = tree.float_value(key.id);
      // NaNs are all different: with one hash, many would take forever.
      return std::isnan(value) ? H::combine(std::move(h), key.id)
                               : H::combine(std::move(h), value);
    }
    if (kind == PickleKind::kTuple) {
      for (const PickleId child : tree.children(key.id)) {
        h = H::combine(std::move(h), Key{&tree, child});
      }
      return H::combine(std::move(h), tree.children(key.id).size());
    }
    h = H::combine(std::move(h), kind, tree.text(key.id));
    if (IsIdentity(kind)) h = H::combine(std::move(h), key.id);
    return h;
  }

  // The number, if it is one.
  static std::optional<int64_t> Integer(const PickleTree& tree, PickleId id) {
    if (tree.kind(id) != PickleKind::kFloat) return tree.int_value(id);
    const double value = tree.float_value(id);
    constexpr double kEnd = 0x1p63;
    if (!(value >= -kEnd && value < kEnd) || std::trunc(value) != value) {
      return std::nullopt;
    }
    return static_cast<int64_t>(value);
  }

  // Equal if it is the same object, for all that we know of it.
  static bool IsIdentity(PickleKind kind) {
    return kind == PickleKind::kOpaque || kind == PickleKind::kGlobal ||
           kind == PickleKind::kComplex || kind == PickleKind::kSet ||
           kind == PickleKind::kStorage;
  }

  friend bool operator==(const Key& a, const Key& b) {
    if (a.id == b.id) return true;
    const PickleTree& tree = *a.tree;
    const PickleKind kind = tree.kind(a.id);
    const PickleKind other = tree.kind(b.id);
    if (IsNumber(kind) && IsNumber(other)) {
      const std::optional<int64_t> integer = Integer(tree, a.id);
      return integer.has_value() || Integer(tree, b.id).has_value()
                 ? integer == Integer(tree, b.id)
                 : tree.float_value(a.id) == tree.float_value(b.id);
    }
    if (kind != other || IsIdentity(kind)) return false;
    if (kind != PickleKind::kTuple) return tree.text(a.id) == tree.text(b.id);
    const absl::Span<const PickleId> items = tree.children(a.id);
    const absl::Span<const PickleId> others = tree.children(b.id);
    if (items.size() != others.size()) return false;
    for (size_t i = 0; i < items.size(); ++i) {
      if (!(Key{&tree, items[i]} == Key{&tree, others[i]})) return false;
    }
    return true;
  }
};

bool PickleTree::IsHashable(PickleId id) const {
  switch (kind(id)) {
    case PickleKind::kList:
    case PickleKind::kDict:
    case PickleKind::kTensor:
    case PickleKind::kSpent:
      return false;
    case PickleKind::kTuple: {
      const absl::Span<const PickleId> items = children(id);
      return std::all_of(items.begin(), items.end(),
                         [this](PickleId item) { return IsHashable(item); });
    }
    default:
      return true;
  }
}

absl::Status PickleTree::DropRepeated(PickleId container) {
  const bool is_dict = kind(container) == PickleKind::kDict;
  const size_t step = is_dict ? 2 : 1;
  std::vector<PickleId>& children = MutableChildren(container);
  // Keys by where they are now in `children`.
  const auto key_at = [&](uint32_t at) { return Key{this, children[at]}; };
  const auto hash = [&](uint32_t at) { return absl::Hash<Key>()(key_at(at)); };
  const auto equal = [&](uint32_t a, uint32_t b) {
    return key_at(a) == key_at(b);
  };
  absl::flat_hash_set<uint32_t, decltype(hash), decltype(equal)> first(
      children.size() / step, hash, equal);
  uint32_t end = 0;
  for (size_t i = 0; i < children.size(); i += step) {
    if (!IsHashable(children[i])) {
      return absl::InvalidArgumentError(
          absl::StrCat("a ", type_name(children[i]), " is a key of a ",
                       type_name(container)));
    }
    children[end] = children[i];
    const auto [found, is_new] = first.insert(end);
    if (is_dict) children[*found + 1] = children[i + 1];
    if (is_new) end += static_cast<uint32_t>(step);
  }
  children.resize(end);
  return absl::OkStatus();
}

absl::Status PickleTree::Finish(PickleId root, bool allow_names) {
  GRAPNEL_ASSIGN_OR_RETURN(const std::vector<PickleId> order,
                           CheckGraph(root, allow_names));
  for (const PickleId id : order) {
    if (kind(id) != PickleKind::kDict && kind(id) != PickleKind::kSet) continue;
    if (children(id).empty()) continue;
    GRAPNEL_RETURN_IF_ERROR(DropRepeated(id));
  }
  return absl::OkStatus();
}

}  // namespace io
}  // namespace grapnel
