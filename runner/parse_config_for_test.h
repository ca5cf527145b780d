// The configuration of a test's run, from text.

#ifndef GRAPNEL_RUNNER_PARSE_CONFIG_FOR_TEST_H_
#define GRAPNEL_RUNNER_PARSE_CONFIG_FOR_TEST_H_

#include <string>

#include "google/protobuf/text_format.h"
#include "grapnel/runner/runner_config.pb.h"
#include "gtest/gtest.h"

namespace grapnel {

// By protobuf's own parser: `text` may be empty, and types of Anys are written
// in full. The test fails if it doesn't parse.
inline runner::v1::RunnerConfig ParseConfig(const std::string& text) {
  runner::v1::RunnerConfig config;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &config))
      << text;
  return config;
}

}  // namespace grapnel

#endif  // GRAPNEL_RUNNER_PARSE_CONFIG_FOR_TEST_H_
