#include "grapnel/io/pth_writer.h"

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_map.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/io/env.h"
#include "grapnel/io/fault_injection_env.h"
#include "grapnel/io/mem_env.h"
#include "grapnel/io/pth.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace io {
namespace {

using Code = absl::StatusCode;
using testing::ElementsAre;
using testing::HasSubstr;

using Calls = std::function<void(PthWriter&)>;

absl::Status Write(Env& env, const std::string& path, const Calls& calls) {
  auto writer = PthWriter::Create(env, path);
  if (!writer.ok()) return writer.status();
  calls(**writer);
  return (*writer)->Finish();
}

uint64_t Get(absl::string_view bytes, size_t offset, int n) {
  uint64_t value = 0;
  for (int i = n; i-- > 0;) {
    value = value << 8 | static_cast<unsigned char>(bytes[offset + i]);
  }
  return value;
}

struct Entry {
  std::string name;
  size_t offset;  // Of the data.
  std::string data;
};

// The entries of a small zip file, by its directory.
std::vector<Entry> Entries(absl::string_view file) {
  std::vector<Entry> entries;
  const size_t end = file.size() - 22;
  size_t at = Get(file, end + 16, 4);
  for (uint64_t i = 0; i < Get(file, end + 10, 2); ++i) {
    const size_t name_size = Get(file, at + 28, 2);
    const size_t header = Get(file, at + 42, 4);
    Entry entry;
    entry.name = std::string(file.substr(at + 46, name_size));
    entry.offset =
        header + 30 + Get(file, header + 26, 2) + Get(file, header + 28, 2);
    entry.data = std::string(file.substr(entry.offset, Get(file, at + 24, 4)));
    entries.push_back(std::move(entry));
    at += 46 + name_size + Get(file, at + 30, 2);
  }
  return entries;
}

std::vector<Entry> EntriesOf(const Calls& calls) {
  MemEnv env;
  EXPECT_THAT(Write(env, "/f", calls), IsOk());
  return Entries(*ReadFile(env, "/f"));
}

std::string PickleOf(const Calls& calls) {
  const std::vector<Entry> entries = EntriesOf(calls);
  EXPECT_EQ(entries[0].name, "archive/data.pkl");
  return entries[0].data;
}

// The storages' data.
std::vector<std::string> StoragesOf(const Calls& calls) {
  std::vector<std::string> data;
  for (const Entry& entry : EntriesOf(calls)) {
    if (absl::StartsWith(entry.name, "archive/data/")) {
      EXPECT_EQ(entry.name, absl::StrCat("archive/data/", data.size()));
      data.push_back(entry.data);
    }
  }
  return data;
}

std::string Bytes(const at::Tensor& tensor) {
  const at::Tensor plain = tensor.contiguous();
  return std::string(static_cast<const char*>(plain.const_data_ptr()),
                     plain.nbytes());
}

// From hex digits, and text in single quotes with $ for a newline; spaces mean
// nothing.
std::string Pickle(absl::string_view text) {
  std::string bytes;
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ' ') continue;
    if (text[i] == '\'') {
      for (++i; text[i] != '\''; ++i) bytes += text[i] == '$' ? '\n' : text[i];
      continue;
    }
    bytes += static_cast<char>(digit(text[i]) << 4 | digit(text[i + 1]));
    ++i;
  }
  return bytes;
}

TEST(PthWriterTest, PlainValues) {
  struct Case {
    const char* what;
    Calls calls;
    const char* pickle;  // Between 80 02 and the stop.
  };
  const Case cases[] = {
      {"none", [](PthWriter& w) { w.None(); }, "'N'"},
      {"true", [](PthWriter& w) { w.Bool(true); }, "88"},
      {"int", [](PthWriter& w) { w.Int(-1); }, "'J' ffffffff"},
      {"float", [](PthWriter& w) { w.Float(1.5); }, "'G' 3ff8000000000000"},
      {"string", [](PthWriter& w) { w.String("\xc3\xa9"); },
       "'X' 02000000 c3a9 'q' 00"},
      {"empty dict",
       [](PthWriter& w) {
         w.BeginDict();
         w.End();
       },
       "'}'"},
      {"dict",
       [](PthWriter& w) {
         w.BeginDict();
         w.String("a");
         w.Int(1);
         w.Int(2);
         w.String("a");
         w.End();
       },
       "'}(' 'X' 01000000 'a' 'q' 00 'K' 01 'K' 02 'h' 00 'u'"},
      {"OrderedDict",
       [](PthWriter& w) {
         w.BeginOrderedDict();
         w.Int(1);
         w.Bool(false);
         w.End();
       },
       "'ccollections$OrderedDict$q' 00 ')R(' 'K' 01 89 'u'"},
      {"empty list",
       [](PthWriter& w) {
         w.BeginList();
         w.End();
       },
       "']'"},
      {"empty tuple",
       [](PthWriter& w) {
         w.BeginTuple();
         w.End();
       },
       "')'"},
      {"nested",
       [](PthWriter& w) {
         w.BeginList();
         w.BeginTuple();
         w.None();
         w.BeginDict();
         w.Int(0);
         w.BeginList();
         w.End();
         w.End();
         w.End();
         w.Int(7);
         w.End();
       },
       "'](' '(N' '}(' 'K' 00 ']' 'u' 't' 'K' 07 'e'"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(PickleOf(c.calls), Pickle(absl::StrCat("8002", c.pickle, "'.'")))
        << c.what;
  }
}

constexpr char kRebuild[] = "'ctorch._utils$_rebuild_tensor_v2$q' 00 '(('";
constexpr char kStorage[] = "'X' 07000000 'storage' 'q' 01";
constexpr char kFloat[] = "'ctorch$FloatStorage$q' 02";
constexpr char kZero[] = "'X' 01000000 '0' 'q' 03";
constexpr char kCpu[] = "'X' 03000000 'cpu' 'q' 04";
constexpr char kHooks[] = "89 'ccollections$OrderedDict$q' 05 ')R'";

TEST(PthWriterTest, ATensorIsAViewOfAStorage) {
  const at::Tensor matrix = ops::arange(6, at::kFloat).view({2, 3}).t();
  const Calls calls = [&](PthWriter& w) { w.Tensor(matrix); };
  EXPECT_EQ(PickleOf(calls),
            Pickle(absl::StrCat(
                "8002", kRebuild, kStorage, kFloat, kZero, kCpu,
                // 6 elements, from 0, of (3, 2) with strides (1, 3).
                "'K' 06 'tQ' 'K' 00 '(' 'K' 03 'K' 02 't(' 'K' 01 'K' 03 't'",
                kHooks, "'tR.'")));
  EXPECT_THAT(StoragesOf(calls), ElementsAre(Bytes(matrix.t())));
}

TEST(PthWriterTest, NewerDtypesStandBesideAStorageOfBytes) {
  const at::Tensor scalar = ops::full({}, 3, at::kUInt16);
  const Calls calls = [&](PthWriter& w) { w.Tensor(scalar); };
  EXPECT_EQ(
      PickleOf(calls),
      Pickle(absl::StrCat("8002 'ctorch._utils$_rebuild_tensor_v3$q' 00 '(('",
                          kStorage, "'ctorch.storage$UntypedStorage$q' 02",
                          kZero, kCpu, "'K' 02 'tQ' 'K' 00 '(t' '(t'", kHooks,
                          "'ctorch$uint16$q' 06 'tR.'")));
  EXPECT_THAT(StoragesOf(calls), ElementsAre(std::string("\x03\0", 2)));
}

TEST(PthWriterTest, SharedStorageIsWrittenOnceAndWhole) {
  const at::Tensor base = ops::arange(8, at::kFloat);
  const Calls calls = [&](PthWriter& w) {
    w.BeginList();
    w.Tensor(base.slice(0, 6));
    w.Tensor(base.slice(0, 0, 8, 4));
    w.End();
  };
  EXPECT_EQ(PickleOf(calls),
            Pickle(absl::StrCat(
                "8002 '](", "'", kRebuild, kStorage, kFloat, kZero, kCpu,
                "'K' 08 'tQ' 'K' 06 '(' 'K' 02 't(' 'K' 01 't'", kHooks, "'tR'",
                "'h' 00 '((' 'h' 01 'h' 02 'h' 03 'h' 04",
                "'K' 08 'tQ' 'K' 00 '(' 'K' 02 't(' 'K' 04 't'",
                "89 'h' 05 ')R'", "'tRe.'")));
  EXPECT_THAT(StoragesOf(calls), ElementsAre(Bytes(base)));
}

TEST(PthWriterTest, AViewThatUsesLessThanHalfIsWrittenAlone) {
  const at::Tensor base = ops::arange(100, at::kFloat);
  const at::Tensor square = base.view({10, 10});
  struct Case {
    const char* what;
    std::vector<at::Tensor> tensors;
    std::string storage;
    const char* view;  // Of the first: elements, offset, sizes, strides.
  };
  const Case cases[] = {
      {"half", {base.slice(0, 50)}, Bytes(base), "'K' 64 'tQ' 'K' 32 "},
      {"less",
       {base.slice(0, 51)},
       Bytes(base.slice(0, 51)),
       "'K' 31 'tQ' 'K' 00 '(' 'K' 31 't(' 'K' 01 't'"},
      {"less, by columns",
       {square.slice(0, 8).t()},
       Bytes(square.slice(0, 8)),
       "'K' 14 'tQ' 'K' 00 '(' 'K' 0a 'K' 02 't(' 'K' 01 'K' 0a 't'"},
      {"lying apart",
       {square.slice(1, 8)},
       Bytes(square.slice(1, 8)),
       "'K' 14 'tQ' 'K' 00 '(' 'K' 0a 'K' 02 't(' 'K' 02 'K' 01 't'"},
      {"tied",
       {base.slice(0, 51), base.slice(0, 51)},
       Bytes(base.slice(0, 51)),
       "'K' 31 'tQ' 'K' 00 '(' 'K' 31 't(' 'K' 01 't'"},
      {"with a neighbour",
       {base.slice(0, 51), base.slice(0, 0, 1)},
       Bytes(base),
       "'K' 64 'tQ' 'K' 33 "},
      {"nothing of it",
       {square.slice(1, 3, 3)},
       "",
       "'K' 00 'tQ' 'K' 00 '(' 'K' 0a 'K' 00 't'"},
      {"again and again",
       {base.slice(0, 0, 1).expand({7, 40})},
       Bytes(base),
       "'K' 64 'tQ' 'K' 00 '(' 'K' 07 'K' 28 't(' 'K' 00 'K' 00 't'"},
  };
  for (const Case& c : cases) {
    const Calls calls = [&](PthWriter& w) {
      w.BeginTuple();
      for (const at::Tensor& tensor : c.tensors) w.Tensor(tensor);
      w.End();
    };
    EXPECT_THAT(StoragesOf(calls), ElementsAre(c.storage)) << c.what;
    EXPECT_THAT(PickleOf(calls), HasSubstr(Pickle(c.view))) << c.what;
  }
}

TEST(PthWriterTest, AStorageSeenAsTwoDtypesIsTwoStorages) {
  const at::Tensor floats = ops::ones({2});
  EXPECT_THAT(StoragesOf([&](PthWriter& w) {
                w.BeginList();
                w.Tensor(floats);
                w.Tensor(floats.view(at::kInt));
                w.Tensor(floats);
                w.End();
              }),
              ElementsAre(Bytes(floats), Bytes(floats)));
}

TEST(PthWriterTest, WhatIsStoredOtherwiseThanItIsBecomesPlain) {
  const at::Tensor pairs = ops::arange(4, at::kFloat).view({2, 2});
  const at::Tensor values =
      ops::full({2}, c10::complex<double>(1, 2), at::kComplexFloat);
  ASSERT_TRUE(values.conj().is_conj());
  const at::Tensor conj = values.conj().resolve_conj();
  EXPECT_THAT(StoragesOf([&](PthWriter& w) { w.Tensor(values.conj()); }),
              ElementsAre(Bytes(conj)));
  pairs.set_requires_grad(true);
  EXPECT_THAT(StoragesOf([&](PthWriter& w) { w.Tensor(pairs); }),
              ElementsAre(Bytes(pairs.detach())));
}

TEST(PthWriterTest, EntriesAndTheirPlaces) {
  const at::Tensor a = ops::ones({3});
  const at::Tensor b = ops::empty({0, 4});
  const at::Tensor c = ops::zeros({100}, at::kBool);
  const std::vector<Entry> entries = EntriesOf([&](PthWriter& w) {
    w.BeginTuple();
    for (const at::Tensor& tensor : {a, b, c}) w.Tensor(tensor);
    w.End();
  });
  std::vector<std::string> names;
  for (const Entry& entry : entries) {
    names.push_back(entry.name);
    EXPECT_EQ(entry.offset % 64, 0) << entry.name;
  }
  EXPECT_THAT(names, ElementsAre("archive/data.pkl", "archive/byteorder",
                                 "archive/version", "archive/data/0",
                                 "archive/data/1", "archive/data/2"));
  EXPECT_EQ(entries[1].data, "little");
  EXPECT_EQ(entries[2].data, "3\n");
  EXPECT_EQ(entries[3].data, Bytes(a));
  EXPECT_EQ(entries[4].data, "");
  EXPECT_EQ(entries[5].data, Bytes(c));
}

TEST(PthWriterTest, ALargeTensorIsWrittenInPieces) {
  const at::Tensor large = ops::arange(1'000'000, at::kInt);
  EXPECT_THAT(StoragesOf([&](PthWriter& w) { w.Tensor(large); }),
              ElementsAre(Bytes(large)));
}

TEST(PthWriterTest, WeightsAreAnOrderedDict) {
  TensorMap weights;
  ASSERT_THAT(weights.Add("fc.weight", ops::ones({2, 2})), IsOk());
  ASSERT_THAT(weights.Add("fc.bias", ops::zeros({2})), IsOk());
  MemEnv env;
  ASSERT_THAT(WritePthWeights(env, "/f", weights), IsOk());
  ASSERT_THAT(Write(env, "/g",
                    [&](PthWriter& w) {
                      w.BeginOrderedDict();
                      w.String("fc.weight");
                      w.Tensor(*weights.Find("fc.weight"));
                      w.String("fc.bias");
                      w.Tensor(*weights.Find("fc.bias"));
                      w.End();
                    }),
              IsOk());
  EXPECT_EQ(*ReadFile(env, "/f"), *ReadFile(env, "/g"));
  ASSERT_THAT(WritePthWeights(env, "/h", TensorMap()), IsOk());
}

// Files in "/" after `calls` failed over an old file.
void ExpectRefused(const char* what, const Calls& calls, Code code,
                   absl::string_view message) {
  MemEnv env;
  ASSERT_THAT(WriteFileAtomically(env, "/f.pth", "old"), IsOk());
  EXPECT_THAT(Write(env, "/f.pth", calls),
              StatusIs(code, testing::AllOf(testing::StartsWith("/f.pth: "),
                                            HasSubstr(message))))
      << what;
  EXPECT_EQ(*ReadFile(env, "/f.pth"), "old") << what;
  EXPECT_THAT(*env.ListDir("/"), ElementsAre("f.pth")) << what;
}

TEST(PthWriterTest, RefusesTensorsThatPythonDoesNotLoad) {
  at::Tensor freed = ops::ones({2, 3});
  freed.storage().unsafeGetStorageImpl()->set_nbytes(8);
  struct Case {
    const char* what;
    at::Tensor tensor;
    const char* message;
  };
  const Case cases[] = {
      {"undefined", at::Tensor(), "an undefined tensor"},
      {"sparse", ops::ones({2, 2}).to_sparse(), "a sparse or nested tensor"},
      {"sparse rows", ops::ones({2, 2}).to_sparse_csr(), "a sparse or nested"},
      {"meta", ops::empty({2}, at::TensorOptions(at::kMeta)),
       "a tensor without data"},
      {"dtype", ops::ones({2}, at::kByte).view(c10::ScalarType::Bits8),
       "a tensor of dtype Bits8"},
      {"freed", freed,
       "a tensor that ends at element 6 of a storage that has 2"},
  };
  for (const Case& c : cases) {
    const Calls calls = [&](PthWriter& w) {
      w.BeginDict();
      w.String("state_dict");
      w.BeginOrderedDict();
      w.String("fc.bias");
      w.Tensor(ops::ones({2}));
      w.String("fc.weight");
      w.Tensor(c.tensor);
      w.Tensor(at::Tensor());  // Not the first error.
      w.End();
      w.End();
    };
    ExpectRefused(c.what, calls, Code::kInvalidArgument,
                  absl::StrCat("[\"state_dict\"][\"fc.weight\"]: cannot write ",
                               c.message));
  }
}

TEST(PthWriterTest, RefusesStringsThatAreNotUtf8) {
  ExpectRefused(
      "value",
      [](PthWriter& w) {
        w.BeginList();
        w.Int(1);
        w.BeginDict();
        w.Int(-7);
        w.String("caf\xe9");
        w.End();
        w.End();
      },
      Code::kInvalidArgument, "[1][-7]: not UTF-8 from byte 3");
  ExpectRefused(
      "key",
      [](PthWriter& w) {
        w.BeginDict();
        w.String("caf\xe9");
        w.Int(1);
        w.End();
      },
      Code::kInvalidArgument, "[\"caf\\xe9\"]: not UTF-8 from byte 3");
}

TEST(PthWriterTest, RefusesCallsThatMakeNoValue) {
  struct Case {
    const char* what;
    Calls calls;
    const char* message;
  };
  const Case cases[] = {
      {"nothing", [](PthWriter&) {}, "no value was given"},
      {"two values",
       [](PthWriter& w) {
         w.Int(1);
         w.Int(2);
       },
       "an int after the end of the value"},
      {"two containers",
       [](PthWriter& w) {
         w.BeginDict();
         w.End();
         w.BeginDict();
         w.End();
       },
       "a dict after the end of the value"},
      {"End alone", [](PthWriter& w) { w.End(); }, "an End without a Begin"},
      {"one End too many",
       [](PthWriter& w) {
         w.BeginList();
         w.End();
         w.End();
       },
       "an End without a Begin"},
      {"one End too few",
       [](PthWriter& w) {
         w.BeginDict();
         w.String("a");
         w.BeginList();
         w.End();
       },
       "[\"a\"]: 1 containers have no End"},
      {"key without a value",
       [](PthWriter& w) {
         w.BeginDict();
         w.String("a");
         w.End();
       },
       "[\"a\"]: the key has no value"},
      {"value without a key",
       [](PthWriter& w) {
         w.BeginOrderedDict();
         w.Tensor(ops::ones({1}));
         w.End();
       },
       "a tensor where a key, a String or an Int, is expected"},
      {"list as a key",
       [](PthWriter& w) {
         w.BeginDict();
         w.BeginList();
         w.End();
         w.End();
       },
       "a list where a key"},
      {"bool as a key",
       [](PthWriter& w) {
         w.BeginDict();
         w.Int(1);
         w.Int(2);
         w.Bool(true);
         w.End();
       },
       "a bool where a key"},
      {"101 levels",
       [](PthWriter& w) {
         for (int i = 0; i < 101; ++i) w.BeginList();
         for (int i = 0; i < 101; ++i) w.End();
       },
       "a list in 100 others"},
  };
  for (const Case& c : cases) {
    ExpectRefused(c.what, c.calls, Code::kFailedPrecondition, c.message);
  }
}

TEST(PthWriterTest, FinishedIsFinished) {
  MemEnv env;
  auto writer = PthWriter::Create(env, "/f");
  ASSERT_THAT(writer, IsOk());
  (*writer)->Int(1);
  ASSERT_THAT((*writer)->Finish(), IsOk());
  const std::string bytes = *ReadFile(env, "/f");
  (*writer)->Int(2);
  EXPECT_THAT((*writer)->Finish(),
              StatusIs(Code::kFailedPrecondition, HasSubstr("already")));
  writer->reset();
  EXPECT_EQ(*ReadFile(env, "/f"), bytes);
}

TEST(PthWriterTest, WithoutFinishNothingIsLeft) {
  MemEnv env;
  auto writer = PthWriter::Create(env, "/f");
  ASSERT_THAT(writer, IsOk());
  (*writer)->Tensor(ops::ones({2}));
  EXPECT_FALSE(env.FileExists("/f"));
  writer->reset();
  EXPECT_THAT(*env.ListDir("/"), testing::IsEmpty());
}

TEST(PthWriterTest, ThePlaceIsCheckedAtOnce) {
  MemEnv env;
  ASSERT_THAT(env.CreateDir("/d"), IsOk());
  EXPECT_THAT(PthWriter::Create(env, "/d"),
              StatusIs(Code::kInvalidArgument, HasSubstr("/d: is a dir")));
  EXPECT_THAT(PthWriter::Create(env, "/none/f"),
              StatusIs(Code::kNotFound, HasSubstr("/none/")));
}

TensorMap SomeWeights() {
  TensorMap weights;
  EXPECT_THAT(weights.Add("w", ops::arange(20'000, at::kFloat)), IsOk());
  EXPECT_THAT(weights.Add("b", ops::ones({3})), IsOk());
  return weights;
}

TEST(PthWriterTest, AFullDiskLeavesTheOldFile) {
  const TensorMap weights = SomeWeights();
  MemEnv roomy;
  ASSERT_THAT(WritePthWeights(roomy, "/f", weights), IsOk());
  const int64_t size = static_cast<int64_t>(ReadFile(roomy, "/f")->size()) + 3;
  for (int64_t capacity = 3; capacity < size; capacity += 997) {
    MemEnv env(capacity);
    ASSERT_THAT(WriteFileAtomically(env, "/f", "old"), IsOk());
    EXPECT_THAT(WritePthWeights(env, "/f", weights),
                StatusIs(Code::kResourceExhausted, HasSubstr("f-")))
        << capacity;
    EXPECT_EQ(*ReadFile(env, "/f"), "old") << capacity;
    EXPECT_THAT(*env.ListDir("/"), ElementsAre("f")) << capacity;
  }
  MemEnv env(size);
  ASSERT_THAT(WriteFileAtomically(env, "/f", "old"), IsOk());
  EXPECT_THAT(WritePthWeights(env, "/f", weights), IsOk());
}

TEST(PthWriterTest, EveryOperationMayFail) {
  const TensorMap weights = SomeWeights();
  for (const bool short_writes : {false, true}) {
    for (int64_t n = 0;; ++n) {
      SCOPED_TRACE(absl::StrCat("operation ", n));
      MemEnv mem;
      ASSERT_THAT(mem.CreateDir("/run"), IsOk());
      ASSERT_THAT(WriteFileAtomically(mem, "/run/f", "old"), IsOk());
      FaultInjectionEnv env(mem, "/run");
      env.set_short_writes(short_writes);
      env.FailOperation(n, absl::UnavailableError("input/output error"));
      const absl::Status status = WritePthWeights(env, "/run/f", weights);
      EXPECT_THAT(*env.ListDir("/run"), ElementsAre("f"));
      const std::string last = env.operations().back();
      if (status.ok()) {
        EXPECT_GT(n, 10);  // All have failed once.
        break;
      }
      EXPECT_THAT(status,
                  StatusIs(Code::kUnavailable, HasSubstr("input/output")));
      const std::string content = *ReadFile(env, "/run/f");
      if (absl::StrContains(last, "sync") && content != "old") {
        EXPECT_EQ(Entries(content).size(), 5u);  // Renamed already.
      } else {
        EXPECT_EQ(content, "old");
      }
    }
  }
}

TEST(PthWriterTest, OurReaderReadsIt) {
  const at::Tensor base = ops::arange(24, at::kFloat).view({4, 6});
  MemEnv env;
  ASSERT_THAT(Write(env, "/f",
                    [&](PthWriter& w) {
                      w.BeginDict();
                      w.String("model");
                      w.BeginOrderedDict();
                      w.String("base");
                      w.Tensor(base);
                      w.String("column");
                      w.Tensor(base.select(1, 2));
                      w.String("bytes");
                      w.Tensor(base.view(at::kFloat8_e5m2));
                      w.End();
                      w.Int(7);
                      w.BeginTuple();
                      w.Int(std::numeric_limits<int64_t>::min());
                      w.Float(-0.5);
                      w.None();
                      w.End();
                      w.End();
                    }),
              IsOk());
  const auto file = PthFile::Read(env, "/f");
  ASSERT_THAT(file, IsOk());
  EXPECT_TRUE(file->verified());
  const PthValue root = file->root();
  ASSERT_EQ(root.size(), 2);
  EXPECT_EQ(root.key(1).int_value(), 7);
  EXPECT_EQ(root.value(1).item(0).int_value(),
            std::numeric_limits<int64_t>::min());
  EXPECT_EQ(root.value(1).item(1).float_value(), -0.5);
  EXPECT_EQ(root.value(1).item(2).kind(), PthValue::Kind::kNone);
  const PthValue model = *root.Find("model");
  EXPECT_EQ(model.type_name(), "collections.OrderedDict");
  const at::Tensor read = model.Find("base")->tensor();
  EXPECT_TRUE(ops::equal(read, base));
  const at::Tensor column = model.Find("column")->tensor();
  EXPECT_TRUE(column.is_alias_of(read));
  EXPECT_EQ(column.strides(), base.select(1, 2).strides());
  EXPECT_EQ(column.storage_offset(), 2);
  const at::Tensor bytes = model.Find("bytes")->tensor();
  EXPECT_EQ(bytes.scalar_type(), at::kFloat8_e5m2);
  EXPECT_EQ(Bytes(bytes), Bytes(base));
}

TEST(PthWriterTest, OurReaderReadsTheMostLevels) {
  MemEnv env;
  ASSERT_THAT(Write(env, "/f",
                    [](PthWriter& w) {
                      for (int i = 0; i < 100; ++i) w.BeginTuple();
                      w.Int(7);
                      for (int i = 0; i < 100; ++i) w.End();
                    }),
              IsOk());
  const auto file = PthFile::Read(env, "/f");
  ASSERT_THAT(file, IsOk());
  PthValue value = file->root();
  for (int i = 0; i < 100; ++i) value = value.item(0);
  EXPECT_EQ(value.int_value(), 7);
}

TEST(PthWriterTest, APowerCutLeavesTheOldFileOrTheNewOne) {
  const TensorMap weights = SomeWeights();
  for (const auto names : {FaultInjectionEnv::Names::kAsSynced,
                           FaultInjectionEnv::Names::kAsSeen}) {
    for (int64_t n = 0;; ++n) {
      SCOPED_TRACE(absl::StrCat("before operation ", n));
      MemEnv mem;
      ASSERT_THAT(mem.CreateDir("/run"), IsOk());
      ASSERT_THAT(WriteFileAtomically(mem, "/run/f", "old"), IsOk());
      FaultInjectionEnv env(mem, "/run");
      env.FailOperation(n, absl::UnavailableError("power"),
                        FaultInjectionEnv::Times::kFromThenOn);
      const absl::Status status = WritePthWeights(env, "/run/f", weights);
      ASSERT_THAT(env.Crash(names), IsOk());
      const std::string content = *ReadFile(env, "/run/f");
      EXPECT_TRUE(content == "old" || Entries(content).size() == 5);
      if (status.ok()) {
        EXPECT_NE(content, "old");
        break;
      }
    }
  }
}

}  // namespace
}  // namespace io
}  // namespace grapnel
