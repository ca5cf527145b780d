#include "grapnel/io/pickle_reader.h"

#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/types/span.h"
#include "grapnel/base/control_characters.h"
#include "grapnel/base/status_macros.h"
#include "grapnel/base/utf8.h"

namespace grapnel {
namespace io {
namespace {

constexpr int kProtocol = 2;
constexpr int kNewestProtocol = 5;
constexpr size_t kMaxNameSize = 255;

enum Opcode : unsigned char {
  kMark = '(',
  kStop = '.',
  kBinfloat = 'G',
  kBinint = 'J',
  kBinint1 = 'K',
  kBinint2 = 'M',
  kNone = 'N',
  kBinpersid = 'Q',
  kReduce = 'R',
  kBinstring = 'T',
  kShortBinstring = 'U',
  kBinunicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kAppends = 'e',
  kBinget = 'h',
  kLongBinget = 'j',
  kBinput = 'q',
  kLongBinput = 'r',
  kSetitem = 's',
  kTuple = 't',
  kSetitems = 'u',
  kEmptyTuple = ')',
  kEmptyList = ']',
  kEmptyDict = '}',
  kProto = 0x80,
  kNewobj = 0x81,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewtrue = 0x88,
  kNewfalse = 0x89,
  kLong1 = 0x8a,
  kLong4 = 0x8b,
};

absl::Status Invalid(absl::string_view what) {
  return absl::InvalidArgumentError(what);
}

class Machine {
 public:
  Machine(PickleTree& tree, PickleObjects& objects, size_t position)
      : tree_(tree), objects_(objects), position_(position) {}

  size_t position() const { return position_; }
  bool stopped() const { return stopped_; }

  // One opcode.
  absl::Status Step();

  absl::Status CheckProtocol();

  // Behind the last step.
  absl::StatusOr<PickleId> Result() const {
    if (stack_.size() != 1 || !marks_.empty()) {
      return Invalid(absl::StrCat("ends with ", stack_.size(),
                                  " values on the stack, must be one"));
    }
    return stack_[0];
  }

  size_t memory_size() const {
    return tree_.memory_size() + objects_.memory_size() +
           stack_.capacity() * sizeof(stack_[0]) +
           memo_.capacity() * sizeof(memo_[0]) +
           marks_.capacity() * sizeof(marks_[0]);
  }

 private:
  // --- The bytes.

  absl::StatusOr<absl::string_view> Take(uint64_t n) {
    const absl::string_view rest =
        absl::string_view(tree_.source).substr(position_);
    if (n > rest.size()) {
      return absl::OutOfRangeError(
          absl::StrCat("needs ", n, " bytes, there are ", rest.size()));
    }
    position_ += n;
    return rest.substr(0, n);
  }

  absl::StatusOr<uint64_t> TakeNumber(size_t size) {
    GRAPNEL_ASSIGN_OR_RETURN(const absl::string_view bytes, Take(size));
    uint64_t number = 0;
    for (size_t i = size; i-- > 0;) {
      number = number << 8 | static_cast<unsigned char>(bytes[i]);
    }
    return number;
  }

  absl::StatusOr<absl::string_view> TakeLine() {
    const absl::string_view rest =
        absl::string_view(tree_.source).substr(position_);
    const size_t end = rest.substr(0, kMaxNameSize + 1).find('\n');
    if (end == absl::string_view::npos) {
      if (rest.size() <= kMaxNameSize) {
        return absl::OutOfRangeError("a name has no end");
      }
      return Invalid(
          absl::StrCat("a name has more than ", kMaxNameSize, " bytes"));
    }
    position_ += end + 1;
    return rest.substr(0, end);
  }

  // --- The stack. What is below the last mark isn't reached.

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  void Push(PickleId id) { stack_.push_back(id); }

  absl::Status Need(size_t n) const {
    if (stack_.size() - floor() >= n) return absl::OkStatus();
    return Invalid(absl::StrCat("needs ", n, " values of the stack, there ",
                                stack_.size() - floor() == 1 ? "is " : "are ",
                                stack_.size() - floor()));
  }

  PickleId Pop() {  // After Need.
    const PickleId id = stack_.back();
    stack_.pop_back();
    return id;
  }

  // Where the values above the last mark begin; takes the mark away. There are
  // `below` values under it.
  absl::StatusOr<size_t> PopMark(size_t below) {
    if (marks_.empty()) return Invalid("there is no mark");
    const size_t begin = marks_.back();
    marks_.pop_back();
    if (begin - floor() < below) return Invalid("nothing is below the mark");
    return begin;
  }

  absl::Span<const PickleId> Above(size_t begin) const {
    return absl::MakeConstSpan(stack_).subspan(begin);
  }

  // --- Opcodes.

  absl::Status PushText(PickleKind kind, uint64_t size) {
    GRAPNEL_ASSIGN_OR_RETURN(const absl::string_view bytes, Take(size));
    const size_t begin = position_ - bytes.size();
    if (kind == PickleKind::kString) {
      const absl::Status status = CheckUtf8(bytes);
      if (!status.ok()) return Invalid(status.message());
    }
    Push(tree_.AddSourceText(kind, begin, bytes.size()));
    return absl::OkStatus();
  }

  // Python 2's str: text or bytes, nobody knows.
  absl::Status PushOldText(uint64_t size) {
    GRAPNEL_ASSIGN_OR_RETURN(const absl::string_view bytes, Take(size));
    Push(tree_.AddSourceText(
        IsUtf8(bytes) ? PickleKind::kString : PickleKind::kBytes,
        position_ - bytes.size(), bytes.size()));
    return absl::OkStatus();
  }

  absl::Status PushLong(uint64_t size) {
    GRAPNEL_ASSIGN_OR_RETURN(const absl::string_view bytes, Take(size));
    if (size > sizeof(int64_t)) {
      Push(tree_.AddSourceText(PickleKind::kBigInt, position_ - size, size));
      return absl::OkStatus();
    }
    // Two's complement: the last byte has the sign.
    uint64_t number = 0;
    if (size > 0 && (bytes[size - 1] & 0x80) != 0) number = ~uint64_t{0};
    for (size_t i = size; i-- > 0;) {
      number = number << 8 | static_cast<unsigned char>(bytes[i]);
    }
    Push(tree_.AddInt(static_cast<int64_t>(number)));
    return absl::OkStatus();
  }

  absl::Status PushFloat() {
    GRAPNEL_ASSIGN_OR_RETURN(const absl::string_view bytes, Take(8));
    uint64_t bits = 0;  // Big-endian.
    for (const char c : bytes) bits = bits << 8 | static_cast<unsigned char>(c);
    double value = 0;
    std::memcpy(&value, &bits, sizeof(value));
    Push(tree_.AddFloat(value));
    return absl::OkStatus();
  }

  absl::Status PushGlobal() {
    GRAPNEL_ASSIGN_OR_RETURN(const absl::string_view module, TakeLine());
    GRAPNEL_ASSIGN_OR_RETURN(const absl::string_view name, TakeLine());
    for (const absl::string_view part : {module, name}) {
      if (!IsUtf8(part)) return Invalid("a name isn't UTF-8");
      // Python has no such names, and messages have these.
      if (HasControlCharacter(part)) {
        return Invalid("a name holds a control character");
      }
    }
    GRAPNEL_ASSIGN_OR_RETURN(const PickleId id, objects_.Global(module, name));
    Push(id);
    return absl::OkStatus();
  }

  absl::Status Call() {
    GRAPNEL_RETURN_IF_ERROR(Need(2));
    const PickleId arguments = Pop();
    if (tree_.kind(arguments) != PickleKind::kTuple) {
      return Invalid(absl::StrCat("calls with a ", tree_.type_name(arguments),
                                  ", must be a tuple"));
    }
    GRAPNEL_ASSIGN_OR_RETURN(const PickleId id,
                             objects_.Call(Pop(), arguments));
    Push(id);
    return absl::OkStatus();
  }

  absl::Status MakeTuple(size_t n) {
    GRAPNEL_RETURN_IF_ERROR(Need(n));
    const PickleId tuple = tree_.AddTuple(0, Above(stack_.size() - n));
    stack_.resize(stack_.size() - n);
    Push(tuple);
    return absl::OkStatus();
  }

  absl::Status MakeMarkedTuple() {
    GRAPNEL_ASSIGN_OR_RETURN(const size_t begin, PopMark(0));
    const PickleId tuple = tree_.AddTuple(0, Above(begin));
    stack_.resize(begin);
    Push(tuple);
    return absl::OkStatus();
  }

  absl::Status Append(size_t begin) {
    GRAPNEL_RETURN_IF_ERROR(tree_.Append(stack_[begin - 1], Above(begin)));
    stack_.resize(begin);
    return absl::OkStatus();
  }

  absl::Status SetItems(size_t begin) {
    GRAPNEL_RETURN_IF_ERROR(tree_.SetItems(stack_[begin - 1], Above(begin)));
    stack_.resize(begin);
    return absl::OkStatus();
  }

  // Pickle numbers what it puts from 0 on: a larger number than there are yet
  // would be memory for nothing.
  absl::Status Put(size_t number_size) {
    GRAPNEL_ASSIGN_OR_RETURN(const uint64_t index, TakeNumber(number_size));
    GRAPNEL_RETURN_IF_ERROR(Need(1));
    if (index > memo_.size()) {
      return Invalid(absl::StrCat("memo number ", index, " after ",
                                  memo_.size(), " others"));
    }
    if (index == memo_.size()) memo_.emplace_back();
    memo_[index] = stack_.back();
    return absl::OkStatus();
  }

  absl::Status Get(size_t number_size) {
    GRAPNEL_ASSIGN_OR_RETURN(const uint64_t index, TakeNumber(number_size));
    if (index >= memo_.size()) {
      return Invalid(absl::StrCat("memo number ", index, " of ", memo_.size()));
    }
    Push(memo_[index]);
    return absl::OkStatus();
  }

  absl::Status Do(unsigned char opcode);

  PickleTree& tree_;
  PickleObjects& objects_;
  size_t position_;
  bool stopped_ = false;
  std::vector<PickleId> stack_;
  std::vector<size_t> marks_;
  std::vector<PickleId> memo_;
};

absl::Status Machine::CheckProtocol() {
  GRAPNEL_ASSIGN_OR_RETURN(const uint64_t opcode, TakeNumber(1));
  if (opcode != kProto) return Invalid("no pickle begins here");
  GRAPNEL_ASSIGN_OR_RETURN(const uint64_t protocol, TakeNumber(1));
  if (protocol == kProtocol) return absl::OkStatus();
  const std::string what =
      absl::StrCat("pickle protocol ", protocol, ", must be ", kProtocol,
                   ", which torch.save takes by itself");
  return protocol > kProtocol && protocol <= kNewestProtocol
             ? absl::UnimplementedError(what)
             : Invalid(what);
}

absl::Status Machine::Step() {
  GRAPNEL_ASSIGN_OR_RETURN(const uint64_t opcode, TakeNumber(1));
  return Do(static_cast<unsigned char>(opcode));
}

absl::Status Machine::Do(unsigned char opcode) {
  switch (opcode) {
    case kStop:
      stopped_ = true;
      return absl::OkStatus();
    case kMark:
      marks_.push_back(stack_.size());
      return absl::OkStatus();

    case kNone:
      Push(tree_.AddNone());
      return absl::OkStatus();
    case kNewtrue:
    case kNewfalse:
      Push(tree_.AddBool(opcode == kNewtrue));
      return absl::OkStatus();
    case kBinint1:
    case kBinint2: {
      GRAPNEL_ASSIGN_OR_RETURN(const uint64_t value,
                               TakeNumber(opcode == kBinint1 ? 1 : 2));
      Push(tree_.AddInt(static_cast<int64_t>(value)));
      return absl::OkStatus();
    }
    case kBinint: {
      GRAPNEL_ASSIGN_OR_RETURN(const uint64_t value, TakeNumber(4));
      Push(tree_.AddInt(static_cast<int32_t>(static_cast<uint32_t>(value))));
      return absl::OkStatus();
    }
    case kLong1:
    case kLong4: {
      GRAPNEL_ASSIGN_OR_RETURN(const uint64_t size,
                               TakeNumber(opcode == kLong1 ? 1 : 4));
      return PushLong(size);
    }
    case kBinfloat:
      return PushFloat();
    case kBinunicode: {
      GRAPNEL_ASSIGN_OR_RETURN(const uint64_t size, TakeNumber(4));
      return PushText(PickleKind::kString, size);
    }
    case kShortBinstring:
    case kBinstring: {
      GRAPNEL_ASSIGN_OR_RETURN(const uint64_t size,
                               TakeNumber(opcode == kShortBinstring ? 1 : 4));
      return PushOldText(size);
    }

    case kEmptyTuple:
      return MakeTuple(0);
    case kTuple1:
    case kTuple2:
    case kTuple3:
      return MakeTuple(opcode - kTuple1 + 1);
    case kTuple:
      return MakeMarkedTuple();
    case kEmptyList:
      Push(tree_.AddContainer(PickleKind::kList, 0));
      return absl::OkStatus();
    case kEmptyDict:
      Push(tree_.AddContainer(PickleKind::kDict, 0));
      return absl::OkStatus();
    case kAppend:
      GRAPNEL_RETURN_IF_ERROR(Need(2));
      return Append(stack_.size() - 1);
    case kAppends: {
      GRAPNEL_ASSIGN_OR_RETURN(const size_t begin, PopMark(1));
      return Append(begin);
    }
    case kSetitem:
      GRAPNEL_RETURN_IF_ERROR(Need(3));
      return SetItems(stack_.size() - 2);
    case kSetitems: {
      GRAPNEL_ASSIGN_OR_RETURN(const size_t begin, PopMark(1));
      return SetItems(begin);
    }

    case kGlobal:
      return PushGlobal();
    case kReduce:
    case kNewobj:
      return Call();
    case kBuild: {
      GRAPNEL_RETURN_IF_ERROR(Need(2));
      const PickleId state = Pop();
      return objects_.SetState(stack_.back(), state);
    }
    case kBinpersid: {
      GRAPNEL_RETURN_IF_ERROR(Need(1));
      GRAPNEL_ASSIGN_OR_RETURN(const PickleId id, objects_.Persistent(Pop()));
      Push(id);
      return absl::OkStatus();
    }

    case kBinput:
      return Put(1);
    case kLongBinput:
      return Put(4);
    case kBinget:
      return Get(1);
    case kLongBinget:
      return Get(4);

    default:
      return Invalid(
          absl::StrFormat("opcode 0x%02x is not one of torch.save", opcode));
  }
}

absl::StatusOr<PickleId> Run(Machine& machine, size_t max_memory,
                             size_t* begin) {
  *begin = machine.position();
  GRAPNEL_RETURN_IF_ERROR(machine.CheckProtocol());
  while (!machine.stopped()) {
    *begin = machine.position();
    GRAPNEL_RETURN_IF_ERROR(machine.Step());
    if (machine.memory_size() > max_memory) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "values need more than ", max_memory, " bytes of memory"));
    }
  }
  return machine.Result();
}

}  // namespace

absl::StatusOr<PickleId> ReadPickle(PickleTree& tree, PickleObjects& objects,
                                    size_t max_memory, size_t* position) {
  Machine machine(tree, objects, *position);
  size_t begin = 0;  // Of the opcode.
  const absl::StatusOr<PickleId> result = Run(machine, max_memory, &begin);
  if (!result.ok()) {
    return WithContext(result.status(), absl::StrCat("byte ", begin));
  }
  *position = machine.position();
  return *result;
}

}  // namespace io
}  // namespace grapnel
