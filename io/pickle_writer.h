// Python's pickle, protocol 2: what torch.load(weights_only=True) reads of it.

#ifndef GRAPNEL_IO_PICKLE_WRITER_H_
#define GRAPNEL_IO_PICKLE_WRITER_H_

#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace grapnel {
namespace io {

// Opcodes without an operand. They work on a stack of values.
enum class PickleOp : char {
  kMark = '(',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kSetItems = 'u',      // Keys and values since the mark, into the dict below.
  kAppends = 'e',       // Values since the mark, into the list below.
  kTuple = 't',         // Of the values since the mark.
  kReduce = 'R',        // Calls what is below the tuple on top with it.
  kPersistentId = 'Q',  // The object that the value on top stands for.
  kStop = '.',
};

// Appends opcodes to a string. Strings and globals that come again are
// references to the first. Whether the whole makes sense is the caller's
// business. Thread-compatible.
class PickleWriter {
 public:
  PickleWriter();

  void None();
  void Bool(bool value);
  void Int(int64_t value);
  void Float(double value);
  void String(absl::string_view value);  // UTF-8, shorter than 4 GiB.

  // A class or function, by module and name.
  void Global(absl::string_view module, absl::string_view name);

  void Op(PickleOp op) { bytes_ += static_cast<char>(op); }

  const std::string& bytes() const { return bytes_; }

 private:
  // Appends `opcode`, or a reference to where it was appended before.
  void Memoized(std::string opcode);

  std::string bytes_;
  absl::flat_hash_map<std::string, uint32_t> memo_;
};

// Int alone, for what is put into a pickle that is there.
void AppendPickleInt(int64_t value, std::string& bytes);

}  // namespace io
}  // namespace grapnel

#endif  // GRAPNEL_IO_PICKLE_WRITER_H_
