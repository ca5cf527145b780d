// A program that depends on one hook. Prints the hooks that are in it.

#include <cstdio>
#include <string>

#include "grapnel/runner/hook_registry.h"

int main() {
  for (const std::string& config : grapnel::RegisteredHookConfigs()) {
    printf("%s\n", config.c_str());
  }
}
