#include "grapnel/cuda/lerp_plan.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "ATen/core/Tensor.h"
#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "grapnel/base/status_matchers.h"
#include "grapnel/base/tensor_ops.h"
#include "grapnel/cuda/lerp_chunk.h"
#include "grapnel/cuda/lerp_pair.h"
#include "gtest/gtest.h"

namespace grapnel {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

LerpPair PairOf(at::IntArrayRef shape, at::ScalarType dst_type = at::kFloat,
                at::ScalarType src_type = at::kFloat) {
  return {ops::zeros(shape, dst_type), ops::ones(shape, src_type)};
}

TEST(LerpPlanTest, CoversEveryElementOnce) {
  std::vector<LerpPair> pairs;
  for (int64_t n : {int64_t{1}, int64_t{0}, int64_t{3}, kLerpChunkElements - 1,
                    kLerpChunkElements, kLerpChunkElements + 1,
                    5 * kLerpChunkElements + 17}) {
    pairs.push_back(PairOf({n}, at::kBFloat16, at::kFloat));
    pairs.push_back(PairOf({n}, at::kDouble, at::kDouble));
  }
  const auto plan = PlanLerp(pairs);
  ASSERT_THAT(plan, IsOk());

  // How often each address of dst is written, and from where.
  std::map<uintptr_t, std::vector<uintptr_t>> writes;
  for (const LerpLaunch& launch : *plan) {
    const size_t dst_bytes = c10::elementSize(launch.dst_type);
    const size_t src_bytes = c10::elementSize(launch.src_type);
    for (const LerpChunk& chunk : launch.chunks) {
      ASSERT_LE(chunk.count, kLerpChunkElements);
      for (uint32_t i = 0; i < chunk.count; ++i) {
        writes[reinterpret_cast<uintptr_t>(chunk.dst) + i * dst_bytes]
            .push_back(reinterpret_cast<uintptr_t>(chunk.src) + i * src_bytes);
      }
    }
  }
  size_t elements = 0;
  for (const LerpPair& pair : pairs) {
    const auto dst = reinterpret_cast<uintptr_t>(pair.dst.const_data_ptr());
    const auto src = reinterpret_cast<uintptr_t>(pair.src.const_data_ptr());
    for (int64_t i = 0; i < pair.dst.numel(); ++i, ++elements) {
      ASSERT_EQ(writes[dst + i * pair.dst.element_size()],
                std::vector<uintptr_t>{src + i * pair.src.element_size()});
    }
  }
  EXPECT_EQ(writes.size(), elements);
}

TEST(LerpPlanTest, ManySmallTensorsOfOneTypeAreOneLaunch) {
  std::vector<LerpPair> many;
  for (int i = 0; i < 1000; ++i) many.push_back(PairOf({64}));
  const auto plan = PlanLerp(many);
  ASSERT_THAT(plan, IsOk());
  ASSERT_EQ(plan->size(), 1u);
  EXPECT_EQ(plan->front().chunks.size(), 1000u);
}

TEST(LerpPlanTest, EachCombinationOfTypesIsALaunch) {
  const auto plan = PlanLerp({PairOf({8}, at::kFloat, at::kHalf),
                              PairOf({8}, at::kHalf, at::kFloat),
                              PairOf({8}, at::kFloat, at::kHalf)});
  ASSERT_THAT(plan, IsOk());
  ASSERT_EQ(plan->size(), 2u);
  EXPECT_EQ((*plan)[0].dst_type, at::kFloat);
  EXPECT_EQ((*plan)[0].src_type, at::kHalf);
  EXPECT_EQ((*plan)[0].chunks.size(), 2u);
  EXPECT_EQ((*plan)[1].dst_type, at::kHalf);
}

TEST(LerpPlanTest, AlignedIsWhatBothPointersAre) {
  struct Case {
    const char* name;
    at::ScalarType type;
    int64_t dst_offset;  // In elements.
    int64_t src_offset;
    bool aligned;
  };
  const Case cases[] = {
      {"both", at::kFloat, 0, 0, true},
      {"dst is not", at::kFloat, 1, 0, false},
      {"src is not", at::kFloat, 0, 3, false},
      {"by a whole load", at::kFloat, 4, 8, true},
      {"half needs eight", at::kHalf, 4, 0, false},
      {"half by eight", at::kHalf, 8, 16, true},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    const LerpPair whole = PairOf({100}, c.type, c.type);
    const auto plan = PlanLerp({{whole.dst.narrow(0, c.dst_offset, 64),
                                 whole.src.narrow(0, c.src_offset, 64)}});
    ASSERT_THAT(plan, IsOk());
    EXPECT_EQ(plan->at(0).chunks.at(0).aligned, c.aligned);
  }
}

TEST(LerpPlanTest, NothingToDoIsNoLaunch) {
  const auto none = PlanLerp({});
  ASSERT_THAT(none, IsOk());
  EXPECT_THAT(*none, IsEmpty());
  const auto empty = PlanLerp({PairOf({0, 3})});
  ASSERT_THAT(empty, IsOk());
  EXPECT_THAT(*empty, IsEmpty());
}

TEST(LerpPlanTest, TakesAnyOrderInMemoryThatBothHave) {
  const LerpPair pair = PairOf({2, 3, 4, 5});
  const auto both = [&](at::MemoryFormat format) -> LerpPair {
    return {pair.dst.contiguous(format), pair.src.contiguous(format)};
  };
  EXPECT_THAT(CheckLerpPair(both(at::MemoryFormat::ChannelsLast)), IsOk());
  EXPECT_THAT(
      CheckLerpPair({pair.dst.transpose(0, 3), pair.src.transpose(0, 3)}),
      IsOk());
  // Of a dimension of size 1 the stride says nothing.
  EXPECT_THAT(CheckLerpPair({ops::zeros({4, 1}).as_strided({4, 1}, {1, 7}),
                             ops::ones({4, 1})}),
              IsOk());
}

TEST(LerpPlanTest, RefusesByName) {
  const at::Tensor memory = ops::zeros({100});
  struct Case {
    const char* name;
    std::vector<LerpPair> pairs;
    const char* message;
  };
  const Case cases[] = {
      {"undefined dst",
       {{at::Tensor(), ops::ones({2})}},
       "pairs[0]: dst: is und"},
      {"undefined src",
       {{ops::ones({2}), at::Tensor()}},
       "pairs[0]: src: is und"},
      {"second pair",
       {PairOf({2}), {ops::ones({2}), at::Tensor()}},
       "pairs[1]: src: is undefined"},
      {"integers", {PairOf({2}, at::kLong, at::kLong)}, "dst: has no type to"},
      {"integer src", {PairOf({2}, at::kFloat, at::kInt)}, "src: has no type"},
      {"shape",
       {{ops::zeros({2, 3}), ops::zeros({3, 2})}},
       "dst is [2, 3], src is [3, 2]"},
      {"gaps",
       {{ops::zeros({8}).slice(0, 0, 8, 2), ops::ones({4})}},
       "dst: has gaps"},
      {"expanded",
       {{ops::zeros({1}).expand({4}), ops::ones({4})}},
       "dst: has gaps"},
      {"order",
       {{ops::zeros({2, 3}), ops::ones({3, 2}).t()}},
       "in different orders"},
      {"device",
       {{ops::zeros({2}),
         ops::ones({2}, at::TensorOptions().device(at::kMeta))}},
       "src: is on meta, the first tensor on cpu"},
      {"sparse",
       {{ops::ones({2, 2}).to_sparse(), ops::ones({2, 2})}},
       "dst: is no plain strided tensor"},
      {"dst twice",
       {{memory.narrow(0, 0, 10), ops::ones({10})},
        {memory.narrow(0, 9, 10), ops::ones({10})}},
       "pairs[1]: dst shares memory with dst of pairs[0]"},
      {"src in another dst",
       {{memory.narrow(0, 50, 10), ops::ones({10})},
        {ops::ones({10}), memory.narrow(0, 41, 10)}},
       "pairs[1]: src shares memory with dst of pairs[0]"},
      {"src around a dst",
       {{memory.narrow(0, 50, 10), ops::ones({10})},
        {ops::ones({100}), memory}},
       "pairs[1]: src shares memory with dst of pairs[0]"},
      {"src is dst", {{memory, memory}}, "src shares memory with dst"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    EXPECT_THAT(PlanLerp(c.pairs), StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr(c.message)));
  }
}

TEST(LerpPlanTest, NeighboursAndASharedSourceDontOverlap) {
  const at::Tensor memory = ops::zeros({100});
  EXPECT_THAT(PlanLerp({{memory.narrow(0, 0, 10), memory.narrow(0, 20, 10)},
                        {memory.narrow(0, 10, 10), memory.narrow(0, 20, 10)}}),
              IsOk());
}

}  // namespace
}  // namespace grapnel
