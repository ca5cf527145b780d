// Memory shared by DLPack: what is good, every way to be bad, and structs made
// at random.

#include "ATen/dlpack.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "ATen/Context.h"
#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/capi/guard.h"
#include "grapnel/grapnel.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using testing::HasSubstr;
using Code = absl::StatusCode;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
constexpr int64_t kMin = std::numeric_limits<int64_t>::min();

int num_deleted = 0;

void CountDeleted(DLManagedTensorVersioned*) { ++num_deleted; }

// 6 floats of a foreign library's, 0 to 5, as a (2, 3).
struct Foreign {
  Foreign() {
    for (int i = 0; i < 8; ++i) data[i] = static_cast<float>(i);
    managed.version = {DLPACK_MAJOR_VERSION, DLPACK_MINOR_VERSION};
    managed.deleter = &CountDeleted;
    managed.dl_tensor.data = data;
    managed.dl_tensor.device = {kDLCPU, 0};
    managed.dl_tensor.ndim = 2;
    managed.dl_tensor.dtype = {kDLFloat, 32, 1};
    managed.dl_tensor.shape = shape;
    managed.dl_tensor.strides = strides;
    num_deleted = 0;
  }
  Foreign(const Foreign&) = delete;
  Foreign& operator=(const Foreign&) = delete;

  alignas(64) float data[8];
  int64_t shape[65] = {2, 3};
  int64_t strides[65] = {3, 1};
  DLManagedTensorVersioned managed = {};
};

absl::Status Import(Foreign& foreign, grapnel_tensor** out) {
  return capi::FromC(grapnel_tensor_from_dlpack(&foreign.managed, out));
}

std::vector<float> Elements(const grapnel_tensor* tensor) {
  std::vector<float> elements(
      static_cast<size_t>(grapnel_tensor_numel(tensor)));
  EXPECT_THAT(capi::FromC(grapnel_tensor_read(tensor, elements.data(),
                                              elements.size() * sizeof(float))),
              IsOk());
  return elements;
}

TEST(DlpackTest, SharesTheMemoryUntilTheLastReferenceGoes) {
  Foreign foreign;
  grapnel_tensor* tensor = nullptr;
  grapnel_tensor* other = nullptr;
  ASSERT_THAT(Import(foreign, &tensor), IsOk());
  EXPECT_EQ(grapnel_tensor_data(tensor), foreign.data);
  EXPECT_EQ(Elements(tensor), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  ASSERT_THAT(capi::FromC(grapnel_tensor_share(tensor, &other)), IsOk());
  const std::vector<float> written = {5, 4, 3, 2, 1, 0};
  EXPECT_THAT(capi::FromC(grapnel_tensor_write(other, written.data(), 24)),
              IsOk());
  EXPECT_EQ(foreign.data[0], 5);
  grapnel_tensor_destroy(tensor);
  EXPECT_EQ(num_deleted, 0);
  grapnel_tensor_destroy(other);
  EXPECT_EQ(num_deleted, 1);
}

struct GoodCase {
  const char* name;
  std::function<void(Foreign&)> change;
  std::vector<float> elements;
};

void PrintTo(const GoodCase& c, std::ostream* os) { *os << c.name; }

class DlpackGoodTest : public testing::TestWithParam<GoodCase> {};

TEST_P(DlpackGoodTest, IsReadAsItLies) {
  Foreign foreign;
  GetParam().change(foreign);
  grapnel_tensor* tensor = nullptr;
  ASSERT_THAT(Import(foreign, &tensor), IsOk());
  EXPECT_EQ(Elements(tensor), GetParam().elements);
  EXPECT_EQ(grapnel_tensor_rank(tensor), foreign.managed.dl_tensor.ndim);
  EXPECT_EQ(num_deleted, 0);
  grapnel_tensor_destroy(tensor);
  EXPECT_EQ(num_deleted, foreign.managed.deleter == nullptr ? 0 : 1);
}

const GoodCase kGood[] = {
    {"AsItShouldBe", [](Foreign&) {}, {0, 1, 2, 3, 4, 5}},
    {"WithoutStrides",
     [](Foreign& f) { f.managed.dl_tensor.strides = nullptr; },
     {0, 1, 2, 3, 4, 5}},
    {"WithoutDeleter",
     [](Foreign& f) { f.managed.deleter = nullptr; },
     {0, 1, 2, 3, 4, 5}},
    {"OfALaterMinorVersion",
     [](Foreign& f) { f.managed.version.minor = 99; },
     {0, 1, 2, 3, 4, 5}},
    {"Pinned",
     [](Foreign& f) { f.managed.dl_tensor.device.device_type = kDLCUDAHost; },
     {0, 1, 2, 3, 4, 5}},
    {"OfTheSecondHost",
     [](Foreign& f) { f.managed.dl_tensor.device.device_id = 1; },
     {0, 1, 2, 3, 4, 5}},
    {"ACopy",
     [](Foreign& f) { f.managed.flags = DLPACK_FLAG_BITMASK_IS_COPIED; },
     {0, 1, 2, 3, 4, 5}},
    {"Later",
     [](Foreign& f) { f.managed.dl_tensor.byte_offset = 8; },
     {2, 3, 4, 5, 6, 7}},
    {"Transposed",
     [](Foreign& f) {
       f.shape[0] = 3;
       f.shape[1] = 2;
       f.strides[0] = 1;
       f.strides[1] = 3;
     },
     {0, 3, 1, 4, 2, 5}},
    {"WithGaps", [](Foreign& f) { f.strides[0] = 4; }, {0, 1, 2, 4, 5, 6}},
    {"Repeated", [](Foreign& f) { f.strides[0] = 0; }, {0, 1, 2, 0, 1, 2}},
    {"StridesThatSayNothing",
     [](Foreign& f) {
       f.shape[0] = 1;
       f.strides[0] = kMin;
     },
     {0, 1, 2}},
    {"OfRankZero",
     [](Foreign& f) {
       f.managed.dl_tensor.ndim = 0;
       f.managed.dl_tensor.shape = nullptr;
       f.managed.dl_tensor.strides = nullptr;
     },
     {0}},
    {"OfRank64",
     [](Foreign& f) {
       f.managed.dl_tensor.ndim = 64;
       std::fill_n(f.shape, 64, 1);
       std::fill_n(f.strides, 64, 1);
       f.shape[63] = 2;
     },
     {0, 1}},
    {"Empty",
     [](Foreign& f) {
       f.shape[0] = 0;
       f.strides[0] = kMax;
       f.managed.dl_tensor.data = nullptr;
       f.managed.dl_tensor.byte_offset = 1;
     },
     {}},
};

INSTANTIATE_TEST_SUITE_P(All, DlpackGoodTest, testing::ValuesIn(kGood),
                         [](const auto& info) { return info.param.name; });

struct BadCase {
  const char* name;
  std::function<void(Foreign&)> change;
  Code code;
  const char* part;
};

void PrintTo(const BadCase& c, std::ostream* os) { *os << c.name; }

class DlpackBadTest : public testing::TestWithParam<BadCase> {};

TEST_P(DlpackBadTest, IsRefusedAndStaysTheCallers) {
  Foreign foreign;
  GetParam().change(foreign);
  const int64_t alive = grapnel_live_objects();
  grapnel_tensor* tensor = nullptr;
  EXPECT_THAT(Import(foreign, &tensor),
              StatusIs(GetParam().code,
                       HasSubstr(absl::StrCat("dlpack: ", GetParam().part))));
  EXPECT_EQ(tensor, nullptr);
  EXPECT_EQ(num_deleted, 0);
  EXPECT_EQ(grapnel_live_objects(), alive);
}

std::function<void(Foreign&)> Dtype(uint8_t code, uint8_t bits,
                                    uint16_t lanes = 1) {
  return [=](Foreign& f) { f.managed.dl_tensor.dtype = {code, bits, lanes}; };
}

std::function<void(Foreign&)> Rank(int32_t rank) {
  return [=](Foreign& f) { f.managed.dl_tensor.ndim = rank; };
}

std::function<void(Foreign&)> Shape(int64_t first, int64_t second) {
  return [=](Foreign& f) {
    f.shape[0] = first;
    f.shape[1] = second;
    f.managed.dl_tensor.strides = nullptr;
  };
}

std::function<void(Foreign&)> Strides(int64_t first, int64_t second) {
  return [=](Foreign& f) {
    f.strides[0] = first;
    f.strides[1] = second;
  };
}

std::function<void(Foreign&)> Device(int32_t type) {
  return [=](Foreign& f) {
    f.managed.dl_tensor.device.device_type = static_cast<DLDeviceType>(type);
  };
}

const BadCase kBad[] = {
    {"Version0", [](Foreign& f) { f.managed.version.major = 0; },
     Code::kUnimplemented, "version: must be 1.x, is 0."},
    {"Version2", [](Foreign& f) { f.managed.version.major = 2; },
     Code::kUnimplemented, "version"},
    {"UnknownFlag", [](Foreign& f) { f.managed.flags = uint64_t{1} << 40; },
     Code::kInvalidArgument, "flags: 0x10000000000"},
    {"PaddedSubbytes",
     [](Foreign& f) {
       f.managed.flags = DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED;
     },
     Code::kInvalidArgument, "flags"},
    {"Lanes4", Dtype(kDLFloat, 32, 4), Code::kUnimplemented,
     "dtype: there is none of code 2, 32 bits and 4 lanes"},
    {"Lanes0", Dtype(kDLFloat, 32, 0), Code::kUnimplemented, "dtype"},
    {"Bits0", Dtype(kDLFloat, 0), Code::kUnimplemented, "dtype"},
    {"Bits255", Dtype(kDLInt, 255), Code::kUnimplemented, "dtype"},
    {"Uint16", Dtype(kDLUInt, 16), Code::kUnimplemented, "dtype"},
    {"Complex", Dtype(kDLComplex, 64), Code::kUnimplemented, "dtype"},
    {"Float8", Dtype(kDLFloat8_e4m3fn, 8), Code::kUnimplemented, "dtype"},
    {"Code255", Dtype(255, 32), Code::kUnimplemented, "dtype"},
    {"Device0", Device(0), Code::kUnimplemented, "device"},
    {"DeviceMinus1", Device(-1), Code::kUnimplemented, "device"},
    {"DeviceVulkan", Device(kDLVulkan), Code::kUnimplemented,
     "device: memory of type 7"},
    {"DeviceManaged", Device(kDLCUDAManaged), Code::kUnimplemented, "device"},
    {"RankMinus1", Rank(-1), Code::kInvalidArgument,
     "rank: must be in [0, 64], is -1"},
    {"Rank65", Rank(65), Code::kInvalidArgument, "rank"},
    {"RankMin", Rank(std::numeric_limits<int32_t>::min()),
     Code::kInvalidArgument, "rank"},
    {"RankMax", Rank(std::numeric_limits<int32_t>::max()),
     Code::kInvalidArgument, "rank"},
    {"NullShape", [](Foreign& f) { f.managed.dl_tensor.shape = nullptr; },
     Code::kInvalidArgument, "shape: must not be null"},
    {"NegativeSize", Shape(2, -1), Code::kInvalidArgument,
     "shape[1]: must be >= 0, is -1"},
    {"SizeMin", Shape(kMin, 1), Code::kInvalidArgument, "shape[0]"},
    {"SizeMax", Shape(kMax, 1), Code::kInvalidArgument, "shape: ["},
    {"TwoToThe62", Shape(int64_t{1} << 62, 1), Code::kInvalidArgument,
     "shape: ["},
    {"ProductWraps", Shape(int64_t{1} << 33, int64_t{1} << 33),
     Code::kInvalidArgument, "shape: ["},
    {"ProductWrapsBesideAZero",
     [](Foreign& f) {
       f.managed.dl_tensor.ndim = 3;
       Shape(int64_t{1} << 33, int64_t{1} << 33)(f);
     },
     Code::kInvalidArgument, "shape: ["},
    {"NegativeStride", Strides(3, -1), Code::kInvalidArgument,
     "strides[1]: must be >= 0, is -1"},
    {"StrideMin", Strides(kMin, 1), Code::kInvalidArgument, "strides[0]"},
    {"StrideMax", Strides(kMax, 1), Code::kInvalidArgument, "strides"},
    {"StrideWraps", Strides(1, kMax), Code::kInvalidArgument, "strides[1]"},
    {"SpanOfMoreThanAnyMemory", Strides(int64_t{1} << 56, 1),
     Code::kInvalidArgument, "strides"},
    {"NullData", [](Foreign& f) { f.managed.dl_tensor.data = nullptr; },
     Code::kInvalidArgument, "data: must not be null"},
    {"UnalignedData",
     [](Foreign& f) {
       f.managed.dl_tensor.data = reinterpret_cast<char*>(f.data) + 1;
     },
     Code::kInvalidArgument, "data: with byte_offset"},
    {"UnalignedOffset", [](Foreign& f) { f.managed.dl_tensor.byte_offset = 2; },
     Code::kInvalidArgument, "data: with byte_offset, which is 2"},
    {"OffsetWraps",
     [](Foreign& f) {
       f.managed.dl_tensor.byte_offset = std::numeric_limits<uint64_t>::max();
     },
     Code::kInvalidArgument, "byte_offset"},
    {"LastElementWraps",
     [](Foreign& f) {
       f.managed.dl_tensor.data = reinterpret_cast<void*>(~uintptr_t{15});
     },
     Code::kInvalidArgument, "byte_offset"},
};

INSTANTIATE_TEST_SUITE_P(All, DlpackBadTest, testing::ValuesIn(kBad),
                         [](const auto& info) { return info.param.name; });

// The pointer is the host's, which a LibTorch with CUDA finds out.
TEST(DlpackTest, HostMemoryIsNoCudaMemory) {
  Foreign foreign;
  Device(kDLCUDA)(foreign);
  grapnel_tensor* tensor = nullptr;
  const absl::Status status = Import(foreign, &tensor);
  EXPECT_FALSE(status.ok());
  if (!at::hasCUDA()) {
    EXPECT_THAT(status, StatusIs(Code::kUnimplemented, HasSubstr("CUDA")));
  }
  EXPECT_EQ(num_deleted, 0);
}

TEST(DlpackTest, EveryDtypeComesAndGoes) {
  const struct {
    DLDataType type;
    grapnel_dtype dtype;
  } kDtypes[] = {
      {{kDLBool, 8, 1}, GRAPNEL_BOOL},
      {{kDLUInt, 8, 1}, GRAPNEL_UINT8},
      {{kDLInt, 8, 1}, GRAPNEL_INT8},
      {{kDLInt, 16, 1}, GRAPNEL_INT16},
      {{kDLInt, 32, 1}, GRAPNEL_INT32},
      {{kDLInt, 64, 1}, GRAPNEL_INT64},
      {{kDLFloat, 16, 1}, GRAPNEL_FLOAT16},
      {{kDLBfloat, 16, 1}, GRAPNEL_BFLOAT16},
      {{kDLFloat, 32, 1}, GRAPNEL_FLOAT32},
      {{kDLFloat, 64, 1}, GRAPNEL_FLOAT64},
  };
  for (const auto& [type, dtype] : kDtypes) {
    Foreign foreign;
    foreign.shape[0] = 1;
    foreign.managed.dl_tensor.dtype = type;
    grapnel_tensor* tensor = nullptr;
    ASSERT_THAT(Import(foreign, &tensor), IsOk()) << dtype;
    EXPECT_EQ(grapnel_tensor_dtype(tensor), dtype);
    DLManagedTensorVersioned* exported = nullptr;
    ASSERT_THAT(capi::FromC(grapnel_tensor_to_dlpack(tensor, &exported)),
                IsOk())
        << dtype;
    EXPECT_EQ(exported->dl_tensor.dtype.code, type.code) << dtype;
    EXPECT_EQ(exported->dl_tensor.dtype.bits, type.bits) << dtype;
    exported->deleter(exported);
    grapnel_tensor_destroy(tensor);
    EXPECT_EQ(num_deleted, 1);
  }
}

TEST(DlpackTest, ReadOnlyMemoryStaysAsItIs) {
  Foreign foreign;
  foreign.managed.flags = DLPACK_FLAG_BITMASK_READ_ONLY;
  grapnel_tensor* tensor = nullptr;
  ASSERT_THAT(Import(foreign, &tensor), IsOk());
  const std::vector<float> written(6, 9);
  EXPECT_THAT(capi::FromC(grapnel_tensor_write(tensor, written.data(), 24)),
              StatusIs(Code::kFailedPrecondition, HasSubstr("read-only")));
  EXPECT_EQ(foreign.data[0], 0);

  // The flag goes where the tensor goes.
  grapnel_tensor* shared = nullptr;
  ASSERT_THAT(capi::FromC(grapnel_tensor_share(tensor, &shared)), IsOk());
  grapnel_tensors* tensors = nullptr;
  ASSERT_THAT(capi::FromC(grapnel_tensors_create(&tensors)), IsOk());
  ASSERT_THAT(capi::FromC(grapnel_tensors_add(tensors, "x", 1, shared)),
              IsOk());
  DLManagedTensorVersioned* exported = nullptr;
  ASSERT_THAT(capi::FromC(grapnel_tensor_to_dlpack(
                  grapnel_tensors_find(tensors, "x", 1), &exported)),
              IsOk());
  EXPECT_EQ(exported->flags & DLPACK_FLAG_BITMASK_READ_ONLY,
            DLPACK_FLAG_BITMASK_READ_ONLY);
  exported->deleter(exported);
  grapnel_tensors_destroy(tensors);
  grapnel_tensor_destroy(tensor);
  EXPECT_EQ(num_deleted, 1);
}

TEST(DlpackTest, WhatIsExportedOutlivesItsHandle) {
  const int64_t shape[2] = {2, 3};
  const float data[6] = {0, 1, 2, 3, 4, 5};
  grapnel_tensor* tensor = nullptr;
  ASSERT_THAT(capi::FromC(grapnel_tensor_create(GRAPNEL_FLOAT32, shape, 2, data,
                                                sizeof(data), &tensor)),
              IsOk());
  DLManagedTensorVersioned* exported = nullptr;
  ASSERT_THAT(capi::FromC(grapnel_tensor_to_dlpack(tensor, &exported)), IsOk());
  EXPECT_EQ(exported->version.major, uint32_t{DLPACK_MAJOR_VERSION});
  EXPECT_EQ(exported->flags, 0U);
  EXPECT_EQ(exported->dl_tensor.data, grapnel_tensor_data(tensor));
  grapnel_tensor_destroy(tensor);

  // And comes in again.
  grapnel_tensor* same = nullptr;
  ASSERT_THAT(capi::FromC(grapnel_tensor_from_dlpack(exported, &same)), IsOk());
  EXPECT_EQ(Elements(same), (std::vector<float>{0, 1, 2, 3, 4, 5}));
  grapnel_tensor_destroy(same);
}

// ---- At random --------------------------------------------------------------

// 0 and 1, which are values of every type.
struct Memory {
  Memory() {
    for (size_t i = 0; i < sizeof(bytes); ++i) bytes[i] = i % 3 == 1;
  }
  alignas(64) unsigned char bytes[4096];
};

class RandomStruct {
 public:
  RandomStruct(std::mt19937_64& random, Memory& memory)
      : random_(random), memory_(memory) {
    DLTensor& tensor = managed.dl_tensor;
    managed.version = {OneOf<uint32_t>({1}, {0, 2, ~0U}),
                       OneOf<uint32_t>({0, 1, 3}, {~0U})};
    managed.deleter = &CountDeleted;
    managed.flags = OneOf<uint64_t>({0, 1, 2, 3}, {4, uint64_t{1} << 63});
    tensor.data = OneOf<void*>(
        {memory.bytes, memory.bytes + 8},
        {nullptr, memory.bytes + 1, reinterpret_cast<void*>(~uintptr_t{7})});
    tensor.byte_offset = OneOf<uint64_t>(
        {0, 8, 16}, {1, 3, ~uint64_t{0}, uint64_t{1} << 63, ~uint64_t{7}});
    tensor.device = {
        static_cast<DLDeviceType>(OneOf<int32_t>({kDLCPU}, {0, 2, 4, 10, -1})),
        OneOf<int32_t>({0}, {-1, 1, std::numeric_limits<int32_t>::min()})};
    tensor.ndim = OneOf<int32_t>({0, 1, 2, 3, 4, 64},
                                 {-1, 65, std::numeric_limits<int32_t>::min(),
                                  std::numeric_limits<int32_t>::max()});
    tensor.dtype = {
        OneOf<uint8_t>({kDLInt, kDLFloat}, {1, 3, 4, 5, 6, 10, 255}),
        OneOf<uint8_t>({32, 64, 16}, {0, 1, 8, 128, 255}),
        OneOf<uint16_t>({1}, {0, 2, 65535})};
    for (int i = 0; i < 64; ++i) {
      shape_[i] = OneOf<int64_t>({1, 1, 2, 3, 5},
                                 {0, -1, kMin, kMax, kTwo31, kTwo32, kTwo62});
      strides_[i] = OneOf<int64_t>(
          {0, 1, 2, 7}, {-1, kMin, kMax, kTwo32, kTwo62 - 1, kTwo62});
    }
    // Beyond a few, only those of 1 have a chance.
    for (int i = 4; i < 64; ++i) {
      if (Chance(15)) shape_[i] = 1;
    }
    if (tensor.ndim == 64 && Chance(15)) std::fill_n(shape_, 64, 1);
    tensor.shape = Chance(15) ? shape_ : nullptr;
    tensor.strides = Chance(8) ? strides_ : nullptr;
  }
  RandomStruct(const RandomStruct&) = delete;
  RandomStruct& operator=(const RandomStruct&) = delete;

  // The bytes of all elements, row-major, if they lie in the memory and aren't
  // too many. Only of a struct that was accepted.
  std::optional<std::string> Elements() const {
    const DLTensor& tensor = managed.dl_tensor;
    const int64_t size = tensor.dtype.bits / 8;
    int64_t count = 1;
    for (int i = 0; i < tensor.ndim; ++i) count *= tensor.shape[i];
    if (count == 0) return "";
    if (count > 4096) return std::nullopt;
    std::vector<int64_t> strides(static_cast<size_t>(tensor.ndim));
    int64_t gapless = 1;
    for (int i = tensor.ndim; i-- > 0;) {
      strides[static_cast<size_t>(i)] =
          tensor.strides != nullptr && tensor.shape[i] > 1 ? tensor.strides[i]
                                                           : gapless;
      gapless *= tensor.shape[i];
    }
    const auto begin =
        reinterpret_cast<uintptr_t>(tensor.data) + tensor.byte_offset;
    const auto low = reinterpret_cast<uintptr_t>(memory_.bytes);
    std::string elements;
    std::vector<int64_t> at(static_cast<size_t>(tensor.ndim));
    for (int64_t n = 0; n < count; ++n) {
      __int128 offset = 0;
      for (size_t i = 0; i < at.size(); ++i) {
        offset += static_cast<__int128>(at[i]) * strides[i] * size;
      }
      const __int128 place = static_cast<__int128>(begin) - low + offset;
      if (place < 0 ||
          place + size > static_cast<__int128>(sizeof(memory_.bytes))) {
        return std::nullopt;
      }
      elements.append(reinterpret_cast<const char*>(memory_.bytes) + place,
                      static_cast<size_t>(size));
      for (size_t i = at.size(); i-- > 0;) {
        if (++at[i] < tensor.shape[i]) break;
        at[i] = 0;
      }
    }
    return elements;
  }

  DLManagedTensorVersioned managed = {};

 private:
  static constexpr int64_t kTwo31 = int64_t{1} << 31;
  static constexpr int64_t kTwo32 = int64_t{1} << 32;
  static constexpr int64_t kTwo62 = int64_t{1} << 62;

  // All but every n-th time.
  bool Chance(uint64_t n) { return random_() % n != 0; }

  // Mostly one of the good.
  template <typename T>
  T OneOf(const std::vector<T>& good, const std::vector<T>& bad) {
    const std::vector<T>& from = Chance(30) ? good : bad;
    return from[random_() % from.size()];
  }

  std::mt19937_64& random_;
  const Memory& memory_;
  int64_t shape_[64];
  int64_t strides_[64];
};

int64_t FromEnvironment(const char* name, int64_t value) {
  const char* const text = std::getenv(name);
  if (text != nullptr) {
    EXPECT_TRUE(absl::SimpleAtoi(text, &value)) << name;
  }
  return value;
}

TEST(DlpackFuzzTest, RandomStructsAreReadRightOrRefused) {
  const int64_t seed = FromEnvironment("GRAPNEL_SEED", 1);
  const int64_t structs = FromEnvironment("GRAPNEL_STRUCTS", 20000);
  std::printf("seed %lld\n", static_cast<long long>(seed));
  std::mt19937_64 random(static_cast<uint64_t>(seed));
  Memory memory;
  int64_t accepted = 0;
  int64_t compared = 0;
  const int64_t alive = grapnel_live_objects();
  for (int64_t n = 0; n < structs; ++n) {
    RandomStruct foreign(random, memory);
    num_deleted = 0;
    grapnel_tensor* tensor = nullptr;
    const absl::Status status =
        capi::FromC(grapnel_tensor_from_dlpack(&foreign.managed, &tensor));
    if (!status.ok()) {
      ASSERT_THAT(status.message(), HasSubstr("dlpack: ")) << "struct " << n;
      ASSERT_EQ(tensor, nullptr) << "struct " << n;
      ASSERT_EQ(num_deleted, 0) << "struct " << n;
      continue;
    }
    ++accepted;
    const std::optional<std::string> elements = foreign.Elements();
    if (elements.has_value()) {
      ++compared;
      std::string read(elements->size(), '\xff');
      ASSERT_THAT(
          capi::FromC(grapnel_tensor_read(tensor, &read[0], read.size())),
          IsOk())
          << "struct " << n;
      ASSERT_EQ(read, *elements) << "struct " << n;
    }
    ASSERT_EQ(num_deleted, 0) << "struct " << n;
    grapnel_tensor_destroy(tensor);
    ASSERT_EQ(num_deleted, 1) << "struct " << n;
  }
  EXPECT_EQ(grapnel_live_objects(), alive);
  // The test tests something.
  EXPECT_GT(accepted, structs / 10);
  EXPECT_LT(accepted, structs * 9 / 10);
  EXPECT_GT(compared, structs / 20);
}

}  // namespace
}  // namespace grapnel
