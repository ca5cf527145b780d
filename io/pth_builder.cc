#include "grapnel/io/pth_builder.h"

#include <cstddef>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "grapnel/io/crc32.h"

namespace grapnel {
namespace io {
namespace {

std::string Number(uint64_t value, int size) {
  std::string bytes;
  for (int i = 0; i < size; ++i) {
    bytes += static_cast<char>(i < 8 ? value >> 8 * i : 0);
  }
  return bytes;
}

}  // namespace

std::string BuildZip(const std::vector<ZipEntry>& entries,
                     const ZipLayout& layout) {
  constexpr uint64_t kElsewhere = 0xffffffff;
  std::string file;
  std::string directory;
  for (const ZipEntry& entry : entries) {
    const std::string local_name = entry.local_name.value_or(entry.name);
    const uint64_t offset = entry.header_offset.value_or(file.size());
    const uint64_t size = entry.num_bytes.value_or(entry.data.size());
    // Padding, in front of the bytes alone, as torch.save has it.
    const std::string extra = absl::StrCat("FB", Number(3, 2), "ZZZ");
    absl::StrAppend(&file, "PK\x03\x04", Number(0, 2),
                    Number(entry.local_flags.value_or(entry.flags), 2),
                    Number(entry.local_method.value_or(entry.method), 2),
                    Number(0, 4 + 4 + 4 + 4), Number(local_name.size(), 2),
                    Number(extra.size(), 2), local_name, extra, entry.data);
    std::string wide;
    if (layout.zip64) {
      wide = absl::StrCat(Number(1, 2), Number(24, 2), Number(size, 8),
                          Number(size, 8), Number(offset, 8));
    }
    absl::StrAppend(
        &directory, "PK\x01\x02", Number(0, 4), Number(entry.flags, 2),
        Number(entry.method, 2), Number(0, 4),
        Number(entry.crc32.value_or(Crc32(entry.data)), 4),
        Number(layout.zip64 ? kElsewhere : size, 4),
        Number(layout.zip64 ? kElsewhere : size, 4),
        Number(entry.name.size(), 2), Number(wide.size(), 2),
        Number(0, 2 + 2 + 2 + 4), Number(layout.zip64 ? kElsewhere : offset, 4),
        entry.name, wide);
  }
  const uint64_t begin = layout.directory_offset.value_or(file.size());
  const uint64_t count = layout.count.value_or(entries.size());
  const uint64_t end = file.size() + directory.size();
  absl::StrAppend(&file, directory);
  if (layout.zip64) {
    absl::StrAppend(&file, "PK\x06\x06", Number(44, 8),
                    Number(0, 2 + 2 + 4 + 4), Number(count, 8),
                    Number(count, 8), Number(directory.size(), 8),
                    Number(begin, 8));
    absl::StrAppend(&file, "PK\x06\x07", Number(0, 4), Number(end, 8),
                    Number(1, 4));
  }
  const bool wide = layout.zip64;
  absl::StrAppend(&file, "PK\x05\x06", Number(0, 4),
                  Number(wide ? 0xffff : count, 2),
                  Number(wide ? 0xffff : count, 2),
                  Number(wide ? kElsewhere : directory.size(), 4),
                  Number(wide ? kElsewhere : begin, 4),
                  Number(layout.comment.size(), 2), layout.comment);
  return file;
}

std::vector<ZipEntry> PthEntries(absl::string_view pickle,
                                 const std::vector<std::string>& storages) {
  std::vector<ZipEntry> entries = {{"a/data.pkl", std::string(pickle)},
                                   {"a/byteorder", "little"}};
  for (size_t i = 0; i < storages.size(); ++i) {
    entries.push_back({absl::StrCat("a/data/", i), storages[i]});
  }
  entries.push_back({"a/version", "3\n"});
  return entries;
}

std::string BuildPth(absl::string_view pickle,
                     const std::vector<std::string>& storages) {
  return BuildZip(PthEntries(pickle, storages));
}

std::string BuildLegacyPth(absl::string_view pickle,
                           const std::vector<LegacyStorage>& storages) {
  using pickled::Dict;
  using pickled::Int;
  using pickled::List;
  using pickled::Pickle;
  using pickled::Text;
  std::string file("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
                   15);
  absl::StrAppend(&file, Pickle(Int(1001)),
                  Pickle(Dict({Text("little_endian"), "\x88"})), pickle);
  std::vector<std::string> keys;
  for (const LegacyStorage& storage : storages) {
    keys.push_back(Text(storage.key));
  }
  absl::StrAppend(&file, Pickle(List(keys)));
  for (const LegacyStorage& storage : storages) {
    absl::StrAppend(&file, Number(static_cast<uint64_t>(storage.count), 8),
                    storage.data);
  }
  return file;
}

namespace pickled {

std::string Pickle(absl::string_view value) {
  return absl::StrCat("\x80\x02", value, ".");
}

std::string Int(int64_t value) {
  if (value >= std::numeric_limits<int32_t>::min() &&
      value <= std::numeric_limits<int32_t>::max()) {
    return absl::StrCat("J", Number(static_cast<uint64_t>(value), 4));
  }
  return absl::StrCat("\x8a\x08", Number(static_cast<uint64_t>(value), 8));
}

std::string Float(double value) {
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(bits));
  const std::string little = Number(bits, 8);
  return absl::StrCat("G", std::string(little.rbegin(), little.rend()));
}

std::string Text(absl::string_view text) {
  return absl::StrCat("X", Number(text.size(), 4), text);
}

std::string Bytes(absl::string_view latin1) {
  return Call(Global("_codecs", "encode"), {Text(latin1), Text("latin1")});
}

std::string Global(absl::string_view module, absl::string_view name) {
  return absl::StrCat("c", module, "\n", name, "\n");
}

std::string Tuple(const std::vector<std::string>& items) {
  return absl::StrCat("(", absl::StrJoin(items, ""), "t");
}

std::string List(const std::vector<std::string>& items) {
  return absl::StrCat("](", absl::StrJoin(items, ""), "e");
}

std::string Dict(const std::vector<std::string>& keys_and_values) {
  return absl::StrCat("}(", absl::StrJoin(keys_and_values, ""), "u");
}

std::string Call(absl::string_view callable,
                 const std::vector<std::string>& arguments) {
  return absl::StrCat(callable, Tuple(arguments), "R");
}

std::string OrderedDict(const std::vector<std::string>& keys_and_values) {
  return absl::StrCat(Call(Global("collections", "OrderedDict"), {}), "(",
                      absl::StrJoin(keys_and_values, ""), "u");
}

std::string Storage(absl::string_view type, absl::string_view key,
                    int64_t count, absl::string_view device) {
  const size_t dot = type.rfind('.');
  const std::string global =
      dot == absl::string_view::npos
          ? Global("torch", type)
          : Global(type.substr(0, dot), type.substr(dot + 1));
  return absl::StrCat(
      Tuple({Text("storage"), global, Text(key), Text(device), Int(count)}),
      "Q");
}

namespace {

std::string Ints(const std::vector<int64_t>& values) {
  std::vector<std::string> items;
  for (const int64_t value : values) items.push_back(Int(value));
  return Tuple(items);
}

std::vector<std::string> TensorArguments(absl::string_view storage,
                                         int64_t offset,
                                         const std::vector<int64_t>& sizes,
                                         const std::vector<int64_t>& strides) {
  return {std::string(storage), Int(offset), Ints(sizes),
          Ints(strides),        "\x89",      OrderedDict({})};
}

}  // namespace

std::string TensorOf(absl::string_view storage, int64_t offset,
                     const std::vector<int64_t>& sizes,
                     const std::vector<int64_t>& strides) {
  return Call(Global("torch._utils", "_rebuild_tensor_v2"),
              TensorArguments(storage, offset, sizes, strides));
}

std::string TensorOf(absl::string_view storage, absl::string_view dtype,
                     int64_t offset, const std::vector<int64_t>& sizes,
                     const std::vector<int64_t>& strides) {
  std::vector<std::string> arguments =
      TensorArguments(storage, offset, sizes, strides);
  arguments.push_back(Global("torch", dtype));
  return Call(Global("torch._utils", "_rebuild_tensor_v3"), arguments);
}

}  // namespace pickled
}  // namespace io
}  // namespace grapnel
