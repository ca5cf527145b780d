#include "grapnel/runner/launcher.h"

#include <atomic>

namespace grapnel {
namespace {

std::atomic<JoinRanks> registered{nullptr};

}  // namespace

void RegisterJoinRanks(JoinRanks join) { registered = join; }

JoinRanks RegisteredJoinRanks() { return registered; }

}  // namespace grapnel
