// Linked into a program, makes the fake device known from its start. For those
// that a test runs as processes, by environment variables:
//
//   GRAPNEL_FAKE_GENERATOR  "cpus" or "own", as FakeGenerator
//   GRAPNEL_FAKE_DELAY      "1": DelayFakeCopies(true)
//   GRAPNEL_FAKE_COPIES     a file that is written when the program ends: a
//   line
//                           for each field of FakeCopies, "to_host 12", then
//                           "race" and each of TakeFakeRaces(), "last" and each
//                           of LastFakeCopies()

#include <cstdlib>
#include <fstream>

#include "absl/strings/string_view.h"
#include "grapnel/tests/device/fake_device.h"

namespace grapnel {
namespace {

absl::string_view Variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void WriteCopies() {
  std::ofstream file(std::getenv("GRAPNEL_FAKE_COPIES"));
  const FakeCopies copies = CountFakeCopies();
  file << "to_host " << copies.to_host << "\nto_device " << copies.to_device
       << "\nbytes_to_host " << copies.bytes_to_host << "\nbytes_to_device "
       << copies.bytes_to_device << "\nwaits " << copies.waits << "\n";
  for (const std::string& race : TakeFakeRaces()) {
    file << "race " << race << "\n";
  }
  for (const std::string& last : LastFakeCopies()) {
    file << "last " << last << "\n";
  }
}

bool Register() {
  FakeDevice();
  if (Variable("GRAPNEL_FAKE_GENERATOR") == "cpus") {
    UseFakeGenerator(FakeGenerator::kCpus);
  }
  if (Variable("GRAPNEL_FAKE_DELAY") == "1") DelayFakeCopies(true);
  if (!Variable("GRAPNEL_FAKE_COPIES").empty()) std::atexit(&WriteCopies);
  return true;
}

const bool is_registered = Register();

}  // namespace
}  // namespace grapnel
