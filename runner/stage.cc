#include "grapnel/runner/stage.h"

namespace grapnel {
namespace {

struct Names {
  const char* camel;
  const char* snake;
};

// Indexed by Stage.
constexpr Names kNames[] = {
#define GRAPNEL_STAGE_NAMES(point, snake_name, generic) {#point, snake_name},
    GRAPNEL_FOR_EACH_STAGE(GRAPNEL_STAGE_NAMES)
#undef GRAPNEL_STAGE_NAMES
};

}  // namespace

const char* StageName(Stage stage) {
  return kNames[static_cast<int>(stage)].camel;
}

const char* StageSnakeName(Stage stage) {
  return kNames[static_cast<int>(stage)].snake;
}

}  // namespace grapnel
