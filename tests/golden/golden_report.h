// Which golden cases hold, for the table in tests/golden/README.md.

#ifndef GRAPNEL_TESTS_GOLDEN_GOLDEN_REPORT_H_
#define GRAPNEL_TESTS_GOLDEN_GOLDEN_REPORT_H_

#include <cstdio>
#include <string>

namespace grapnel {

// Notes, in the test's log, that a case of a golden file has been run.
//
// `file`: "scheduler_StepLR.json". `name`: "<section>/<case>", the case by its
// "name" or else by its index ("cases/window_2_8", "errors/3"), "<section>/*"
// for all of a section, "<section>" for one that is no list. `difference`: ""
// if ours is the same, else how it differs and why, in a few words ("c17: never
// smoothed"); the test then asserts what ours is. A test that fails counts for
// nothing, whatever it noted.
inline void NoteGoldenCase(const std::string& file, const std::string& name,
                           const std::string& difference = "") {
  std::printf("[golden]\t%s\t%s\t%s\n", file.c_str(), name.c_str(),
              difference.c_str());
}

}  // namespace grapnel

#endif  // GRAPNEL_TESTS_GOLDEN_GOLDEN_REPORT_H_
