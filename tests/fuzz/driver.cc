// Runs a fuzz target on inputs made from its corpus, for a compiler without a
// fuzzing engine: gcc.
//
//   driver --corpus=DIR [--dictionary=FILE]    changes inputs at random
//   driver FILE...                             runs these, once each
//
// GRAPNEL_FUZZ_INPUTS says how many inputs (20000), or GRAPNEL_FUZZ_SECONDS how
// long; GRAPNEL_SEED the seed (1). Files of a corpus whose names begin with
// "bad_" have to be refused, the others accepted.
//
// Where the code is compiled with -fsanitize-coverage=trace-pc, inputs that go
// a new way through it are kept, and changed further.
//
// An input lies in a file before it is run: after a crash that is the one.
//
// Under AddressSanitizer all that is allocated is counted, and an input that
// needs more at one time than MaxMemory says ends the process where it does.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cctype>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "grapnel/tests/fuzz/fuzz_target.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t max_size, unsigned int seed)
    __attribute__((weak));

namespace grapnel {
int64_t MaxMemory(int64_t size) __attribute__((weak));
}  // namespace grapnel

#ifdef __SANITIZE_ADDRESS__
// gcc brings no header with them.
extern "C" int __sanitizer_install_malloc_and_free_hooks(
    void (*on_malloc)(const volatile void*, size_t),
    void (*on_free)(const volatile void*));
extern "C" int __sanitizer_get_ownership(const volatile void* p);
extern "C" size_t __sanitizer_get_allocated_size(const volatile void* p);
extern "C" void __sanitizer_print_stack_trace();
#endif

// The linker's: where the program begins.
extern "C" const char __executable_start;

// Memory that is freed is soon used again, so that the peak says what an input
// took; and one allocation that no input can ask for is an error with a stack.
extern "C" const char* __asan_default_options() {
  return "quarantine_size_mb=8:max_allocation_size_mb=256";
}

namespace grapnel {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxGrowth = int64_t{256} << 20;  // Of the process.
constexpr double kMaxSeconds = 2;        // Of the processor, for one input.
constexpr double kSlowSeconds = 0.1;     // Counted.
constexpr unsigned kHangSeconds = 120;   // Of the clock.
constexpr size_t kMinMaxSize = 4096;     // Inputs grow up to 4 times the
constexpr size_t kMaxMaxSize = 1 << 18;  // largest of the corpus in these.
constexpr size_t kMaxKept = 1 << 14;

// ----------------------------------------------------------------------
// coverage

constexpr size_t kMapSize = 1 << 16;

alignas(8) std::array<uint8_t, kMapSize> way;   // Of this input.
alignas(8) std::array<uint8_t, kMapSize> seen;  // Of all before.
bool recording = false;
uint32_t last_block = 0;

// How often a block was passed, as a bit: 1, 2, 3, 4-7, 8-15, 16-31, 32-127 or
// more times.
uint8_t Bucket(uint8_t count) {
  if (count <= 2) return count;
  if (count == 3) return 4;
  if (count < 8) return 8;
  if (count < 16) return 16;
  if (count < 32) return 32;
  return count < 128 ? 64 : 128;
}

// Whether the way of the last input has something new; notes it.
bool TakeNewWay() {
  bool is_new = false;
  for (size_t i = 0; i < kMapSize; i += 8) {
    uint64_t eight;
    std::memcpy(&eight, &way[i], 8);
    if (eight == 0) continue;
    for (size_t j = i; j < i + 8; ++j) {
      const uint8_t bucket = Bucket(way[j]);
      if ((bucket & ~seen[j]) != 0) is_new = true;
      seen[j] |= bucket;
    }
  }
  return is_new;
}

// ----------------------------------------------------------------------
// mutation

using Random = std::mt19937_64;

// Numbers near which programs err.
constexpr uint64_t kNumbers[] = {
    0,          1,          2,          3,          4,          7,
    8,          16,         32,         63,         64,         65,
    100,        127,        128,        255,        256,        1000,
    1024,       4095,       4096,       0x7fff,     0x8000,     0xffff,
    0x10000,    0xfffff,    0x100000,   0x7fffffff, 0x80000000, 0xffffffff,
    1ull << 32, 1ull << 40, 1ull << 62, ~0ull >> 1, 1ull << 63, ~0ull};

class Mutator {
 public:
  void SetWords(std::vector<std::string> words) { words_ = std::move(words); }

  // Changes `*input` once; `other` is another one, to take parts from.
  void Change(std::string* input, absl::string_view other, size_t max_size,
              Random& random) {
    std::string& s = *input;
    if (s.empty()) {
      s.assign(1 + random() % 16, static_cast<char>(random()));
    }
    const auto below = [&random](size_t n) { return random() % n; };
    // Lengths of parts: mostly short.
    const auto part = [&](size_t n) {
      return n == 0 ? 0
                    : 1 + below(below(4) == 0 ? n : std::min<size_t>(n, 16));
    };
    const size_t at = below(s.size());
    switch (below(14)) {
      case 0:
        s[at] = static_cast<char>(s[at] ^ 1 << below(8));
        break;
      case 1:
        s[at] = static_cast<char>(random());
        break;
      case 2:
        s[at] = static_cast<char>(s[at] + below(33) - 16);
        break;
      case 3:
      case 4:
        ChangeNumber(&s, random);
        break;
      case 5:
        ChangeDecimal(&s, random);
        break;
      case 6:
        s.erase(at, part(s.size() - at));
        break;
      case 7:
        s.insert(at, part(64), static_cast<char>(random()));
        break;
      case 8:  // A part, once more or many times.
      case 9: {
        const std::string copy = s.substr(at, part(s.size() - at));
        const size_t to = below(s.size());
        size_t times = below(8) == 0 ? 1 + below(200) : 1;
        while (times-- > 0 && s.size() < max_size) s.insert(to, copy);
        break;
      }
      case 10: {  // A part over another.
        const std::string copy = s.substr(at, part(s.size() - at));
        s.replace(below(s.size()), copy.size(), copy);
        break;
      }
      case 11:
        if (words_.empty()) break;
        PutOrInsert(&s, at, words_[below(words_.size())], random);
        break;
      case 12: {
        if (other.empty()) break;
        const size_t from = below(other.size());
        if (below(2) == 0) {
          s = absl::StrCat(s.substr(0, at), other.substr(from));
        } else {
          PutOrInsert(&s, at, other.substr(from, part(other.size() - from)),
                      random);
        }
        break;
      }
      default:
        if (below(4) == 0) s.resize(at);
    }
    if (s.size() > max_size) s.resize(max_size);
  }

 private:
  static void PutOrInsert(std::string* s, size_t at, absl::string_view word,
                          Random& random) {
    s->replace(at, random() % 2 == 0 ? word.size() : 0, word.data(),
               word.size());
  }

  // One of 1, 2, 4 or 8 bytes, of either order.
  static void ChangeNumber(std::string* s, Random& random) {
    const size_t width = std::min<size_t>(s->size(), 1 << random() % 4);
    const size_t at = random() % (s->size() - width + 1);
    const bool big_endian = random() % 2 == 0;
    const auto byte = [&](size_t i) -> char& {
      return (*s)[at + (big_endian ? width - 1 - i : i)];
    };
    uint64_t number = 0;
    for (size_t i = 0; i < width; ++i) {
      number |= uint64_t{static_cast<uint8_t>(byte(i))} << 8 * i;
    }
    switch (random() % 4) {
      case 0:
        number += random() % 65 - 32;
        break;
      case 1:
        number = s->size() + random() % 17 - 8;
        break;
      case 2:
        number = ~number + 1;
        break;
      default:
        number = kNumbers[random() % std::size(kNumbers)] + random() % 3 - 1;
    }
    for (size_t i = 0; i < width; ++i) {
      byte(i) = static_cast<char>(number >> 8 * i);
    }
  }

  // A number that is written in digits.
  static void ChangeDecimal(std::string* s, Random& random) {
    const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
    const auto from = s->begin() + random() % s->size();
    const auto begin = std::find_if(from, s->end(), is_digit);
    if (begin == s->end()) return;
    const auto end = std::find_if_not(begin, s->end(), is_digit);
    uint64_t number = kNumbers[random() % std::size(kNumbers)];
    uint64_t old = 0;
    if (random() % 2 == 0 &&
        absl::SimpleAtoi(
            absl::string_view(&*begin, static_cast<size_t>(end - begin)),
            &old)) {
      number = old + random() % 5 - 2;
    }
    s->replace(
        begin, end,
        random() % 8 == 0 ? absl::StrCat("-", number) : absl::StrCat(number));
  }

  std::vector<std::string> words_;
};

// ----------------------------------------------------------------------
// files

[[noreturn]] void Fail(absl::string_view what) {
  std::fprintf(stderr, "FAILED: %.*s\n", static_cast<int>(what.size()),
               what.data());
  std::fflush(nullptr);
  std::_Exit(1);
}

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) Fail(absl::StrCat(path, ": can't be read"));
  return {std::istreambuf_iterator<char>(file), {}};
}

// Of AFL's and libFuzzer's format: name="value\x00", comments by #.
std::vector<std::string> ReadDictionary(const std::string& path) {
  std::vector<std::string> words;
  std::ifstream file(path);
  if (!file) Fail(absl::StrCat(path, ": can't be read"));
  for (std::string line; std::getline(file, line);) {
    const size_t begin = line.find('"'), end = line.rfind('"');
    if (line.empty() || line[0] == '#' || begin == end) continue;
    std::string word;
    for (size_t i = begin + 1; i < end; ++i) {
      if (line[i] != '\\') {
        word += line[i];
      } else if (line[++i] == 'x' && i + 2 < end) {
        word += static_cast<char>(
            std::strtol(line.substr(i + 1, 2).c_str(), nullptr, 16));
        i += 2;
      } else {
        word += line[i];
      }
    }
    words.push_back(word);
  }
  return words;
}

// Holds the input that is being run. Written by the system, it outlives any end
// of this process.
class InputFile {
 public:
  explicit InputFile(const std::string& path)
      : path_(path), fd_(open(path.c_str(), O_CREAT | O_RDWR | O_TRUNC, 0644)) {
    if (fd_ < 0) Fail(absl::StrCat(path, ": can't be written"));
  }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile() {
    close(fd_);
    unlink(path_.c_str());
  }

  const std::string& path() const { return path_; }

  void Write(absl::string_view input) {
    if (pwrite(fd_, input.data(), input.size(), 0) !=
            static_cast<ssize_t>(input.size()) ||
        ftruncate(fd_, static_cast<off_t>(input.size())) != 0) {
      Fail(absl::StrCat(path_, ": can't be written"));
    }
  }

 private:
  const std::string path_;
  const int fd_;
};

// ----------------------------------------------------------------------
// memory of one input

constexpr int64_t kNoBound = std::numeric_limits<int64_t>::max();

std::atomic<int64_t> live{0};  // Bytes: allocated, less what was freed.
std::atomic<int64_t> most_live{0};
std::atomic<int64_t> max_live{kNoBound};

#ifdef __SANITIZE_ADDRESS__
constexpr bool kCountsMemory = true;

void OnMalloc(const volatile void*, size_t size) {
  const auto more = static_cast<int64_t>(size);
  const int64_t now = live.fetch_add(more, std::memory_order_relaxed) + more;
  int64_t most = most_live.load(std::memory_order_relaxed);
  while (now > most && !most_live.compare_exchange_weak(
                           most, now, std::memory_order_relaxed)) {
  }
  if (now <= max_live.load(std::memory_order_relaxed)) return;
  const int64_t bound = max_live.exchange(kNoBound);
  std::fprintf(stderr,
               "FAILED: an input takes more than %lld bytes of memory\n",
               static_cast<long long>(bound));
  __sanitizer_print_stack_trace();
  std::abort();
}

void OnFree(const volatile void* p) {
  // What can't be freed is AddressSanitizer's to report.
  if (__sanitizer_get_ownership(p) == 0) return;
  live.fetch_sub(static_cast<int64_t>(__sanitizer_get_allocated_size(p)),
                 std::memory_order_relaxed);
}

void CountMemory() {
  if (__sanitizer_install_malloc_and_free_hooks(&OnMalloc, &OnFree) == 0) {
    Fail("memory can't be counted");
  }
}
#else
constexpr bool kCountsMemory = false;

void CountMemory() {}
#endif

// Returns the most memory that the target had at one time, if that is counted.
int64_t RunTarget(const uint8_t* data, size_t size) {
  const auto n = static_cast<int64_t>(size);
  live = 0;
  most_live = 0;
  max_live = MaxMemory == nullptr ? (int64_t{1} << 20) + 64 * n : MaxMemory(n);
  LLVMFuzzerTestOneInput(data, size);
  max_live = kNoBound;
  return most_live;
}

// ----------------------------------------------------------------------
// measurement

double ProcessorSeconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
}

int64_t PeakMemory() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} << 10;
}

int64_t NumberFromEnv(const char* name, int64_t otherwise) {
  const char* const text = std::getenv(name);
  int64_t number = 0;
  if (text == nullptr) return otherwise;
  if (!absl::SimpleAtoi(text, &number) || number < 0) {
    Fail(absl::StrCat(name, ": must be a number >= 0, is ", text));
  }
  return number;
}

void OnAlarm(int) {
  constexpr char kMessage[] = "FAILED: an input takes too long\n";
  (void)!write(2, kMessage, sizeof(kMessage) - 1);
  std::abort();
}

// ----------------------------------------------------------------------

Mutator mutator;
Random mutator_random;  // Of LLVMFuzzerMutate.
std::string mutator_other;

class Driver {
 public:
  Driver(const std::string& name, const std::string& corpus,
         const std::string& dictionary)
      : name_(name), file_(InputPath(name)) {
    if (!dictionary.empty()) mutator.SetWords(ReadDictionary(dictionary));
    for (const auto& entry : fs::directory_iterator(corpus)) {
      paths_.push_back(entry.path().string());
    }
    std::sort(paths_.begin(), paths_.end());
    if (paths_.empty()) Fail(absl::StrCat(corpus, ": is empty"));
  }

  void Run() {
    const int64_t seed = NumberFromEnv("GRAPNEL_SEED", 1);
    const int64_t seconds = NumberFromEnv("GRAPNEL_FUZZ_SECONDS", 0);
    const int64_t num_inputs = NumberFromEnv("GRAPNEL_FUZZ_INPUTS", 20000);
    std::signal(SIGALRM, &OnAlarm);
    absl::PrintF("%s: seed %d; the input that runs is in %s\n", name_, seed,
                 file_.path());
    std::fflush(stdout);

    RunCorpus();
    const int64_t corpus_size = static_cast<int64_t>(kept_.size());
    memory_before_ = PeakMemory();
    random_.seed(static_cast<uint64_t>(seed));
    using Clock = std::chrono::steady_clock;
    const Clock::time_point begin = Clock::now();
    const auto elapsed = [begin] {
      return std::chrono::duration<double>(Clock::now() - begin).count();
    };
    int64_t done = 0;
    for (; seconds > 0 ? elapsed() < static_cast<double>(seconds)
                       : done < num_inputs;
         ++done) {
      const std::string input = Next();
      const bool accepted = RunOne(input);
      if (TakeNewWay()) Keep(input, accepted);
      const int64_t more = PeakMemory() - memory_before_;
      if (more > kMaxGrowth) {
        Fail(absl::StrCat("memory grew by ", more >> 20,
                          " MiB: ", Save("memory", input)));
      }
    }
    Report(done, corpus_size, elapsed());
  }

 private:
  static std::string InputPath(const std::string& name) {
    for (const char* folder : {"TEST_UNDECLARED_OUTPUTS_DIR", "TEST_TMPDIR"}) {
      const char* const path = std::getenv(folder);
      if (path != nullptr) return absl::StrCat(path, "/", name, ".input");
    }
    return absl::StrCat("/tmp/", name, ".", getpid(), ".input");
  }

  // Returns where it lies now.
  std::string Save(absl::string_view what, const std::string& input) const {
    const std::string path =
        absl::StrCat(absl::StripSuffix(file_.path(), ".input"), ".", what);
    std::ofstream(path, std::ios::binary) << input;
    return path;
  }

  void RunCorpus() {
    size_t largest = 0;
    for (const std::string& path : paths_) {
      const std::string input = ReadAll(path);
      largest = std::max(largest, input.size());
      const bool accepted = RunOne(input);
      const bool bad =
          absl::StartsWith(fs::path(path).filename().string(), "bad_");
      if (accepted == bad) {
        Fail(absl::StrCat(path, bad ? ": was accepted" : ": was refused"));
      }
      TakeNewWay();
      Keep(input, accepted);
    }
    has_coverage_ = std::any_of(seen.begin(), seen.end(),
                                [](uint8_t bits) { return bits != 0; });
    max_size_ = std::clamp(4 * largest, kMinMaxSize, kMaxMaxSize);
  }

  void Keep(const std::string& input, bool accepted) {
    if (kept_.size() == kMaxKept) return;
    if (accepted) accepted_.push_back(kept_.size());
    kept_.push_back(input);
  }

  // One of those kept, changed. Those that were accepted, and the newest, come
  // more often: what is refused early leads nowhere.
  std::string Next() {
    const auto below = [this](size_t n) { return random_() % n; };
    const size_t n = kept_.size();
    size_t which = below(n);
    switch (below(4)) {
      case 0:
        which = n - 1 - below(std::min<size_t>(n, 32));
        break;
      case 1:
      case 2:
        if (!accepted_.empty()) which = accepted_[below(accepted_.size())];
        break;
      default:
        break;
    }
    std::string input = kept_[which];
    const std::string& other = kept_[below(n)];
    do {  // Once or, half as often each time, more.
      if (LLVMFuzzerCustomMutator == nullptr) {
        mutator.Change(&input, other, max_size_, random_);
        continue;
      }
      mutator_random.seed(random_());
      mutator_other = other;
      const size_t size = std::min(input.size(), max_size_);
      input.resize(max_size_);
      auto* const bytes = reinterpret_cast<uint8_t*>(&input[0]);
      input.resize(LLVMFuzzerCustomMutator(
          bytes, size, max_size_, static_cast<unsigned int>(random_())));
    } while (random_() % 2 == 0);
    return input;
  }

  // Returns whether the target accepted it.
  bool RunOne(const std::string& input) {
    const int64_t accepted_before = Accepted();
    file_.Write(input);
    // At its exact size on the heap, for AddressSanitizer.
    const std::unique_ptr<uint8_t[]> copy(new uint8_t[input.size()]);
    std::copy(input.begin(), input.end(), copy.get());
    way.fill(0);
    last_block = 0;
    alarm(kHangSeconds);
    const double begin = ProcessorSeconds();
    recording = true;
    const int64_t memory = RunTarget(copy.get(), input.size());
    recording = false;
    const double took = ProcessorSeconds() - begin;
    alarm(0);
    if (memory > most_memory_) {
      most_memory_ = memory;
      most_memory_size_ = input.size();
    }
    if (took > kSlowSeconds) ++slow_;
    if (took > slowest_) {
      slowest_ = took;
      slowest_input_ = input;
    }
    if (took > kMaxSeconds) {
      Fail(absl::StrCat("an input took ", took, " s: ", Save("slow", input)));
    }
    return Accepted() > accepted_before;
  }

  static int64_t Accepted() {
    const auto found = Outcomes().find(absl::StatusCode::kOk);
    return found == Outcomes().end() ? 0 : found->second;
  }

  void Report(int64_t done, int64_t corpus_size, double seconds) const {
    absl::PrintF("%d inputs and %d of the corpus in %.1f s, %.0f/s:", done,
                 corpus_size, seconds, static_cast<double>(done) / seconds);
    for (const auto& [code, n] : Outcomes()) {
      absl::PrintF(" %s %d", absl::StatusCodeToString(code), n);
    }
    absl::PrintF("\n");
    if (has_coverage_) {
      absl::PrintF("%d kept for a new way through the code, %d ways\n",
                   static_cast<int64_t>(kept_.size()) - corpus_size,
                   std::count_if(seen.begin(), seen.end(),
                                 [](uint8_t bits) { return bits != 0; }));
    }
    absl::PrintF(
        "memory %d MiB above the %d MiB after the corpus; slowest input %.1f "
        "ms, of %d bytes; %d above 100 ms\n",
        (PeakMemory() - memory_before_) >> 20, memory_before_ >> 20,
        1000 * slowest_, slowest_input_.size(), slow_);
    if (kCountsMemory) {
      absl::PrintF("an input took at most %d bytes of memory, one of %d\n",
                   most_memory_, most_memory_size_);
    }
    if (Accepted() <= corpus_size / 2) Fail("next to nothing was accepted");
  }

  const std::string name_;
  InputFile file_;
  std::vector<std::string> paths_;
  std::vector<std::string> kept_;  // The corpus, and what went a new way.
  std::vector<size_t> accepted_;   // Those of them that were.
  size_t max_size_ = 0;
  Random random_;
  bool has_coverage_ = false;
  int64_t memory_before_ = 0;
  int64_t slow_ = 0;
  double slowest_ = 0;
  std::string slowest_input_;
  int64_t most_memory_ = 0;
  size_t most_memory_size_ = 0;
};

int Main(const std::vector<std::string>& args) {
  CountMemory();
  std::string corpus, dictionary;
  std::vector<std::string> files;
  for (size_t i = 1; i < args.size(); ++i) {
    absl::string_view value = args[i];
    if (absl::ConsumePrefix(&value, "--corpus=")) {
      corpus = std::string(value);
    } else if (absl::ConsumePrefix(&value, "--dictionary=")) {
      dictionary = std::string(value);
    } else {
      files.push_back(args[i]);
    }
  }
  for (const std::string& path : files) {
    const std::string input = ReadAll(path);
    RunTarget(reinterpret_cast<const uint8_t*>(input.data()), input.size());
    absl::PrintF("%s: done\n", path);
  }
  if (!files.empty()) return 0;
  if (corpus.empty())
    Fail("usage: --corpus=DIR [--dictionary=FILE], or FILE...");
  Driver(fs::path(args[0]).filename().string(), corpus, dictionary).Run();
  return 0;
}

}  // namespace
}  // namespace grapnel

extern "C" void __sanitizer_cov_trace_pc() {
  if (!grapnel::recording) return;
  const auto block = static_cast<uint32_t>(
      reinterpret_cast<uintptr_t>(__builtin_return_address(0)) -
      reinterpret_cast<uintptr_t>(&__executable_start));
  const uint32_t hash = block * 0x9e3779b1u >> 16;
  uint8_t& count = grapnel::way[hash ^ grapnel::last_block];
  if (count < 255) ++count;
  grapnel::last_block = hash >> 1;
}

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size,
                                   size_t max_size) {
  std::string input(reinterpret_cast<const char*>(data), size);
  grapnel::mutator.Change(&input, grapnel::mutator_other, max_size,
                          grapnel::mutator_random);
  std::copy(input.begin(), input.end(), data);
  return input.size();
}

int main(int argc, char** argv) {
  return grapnel::Main(std::vector<std::string>(argv, argv + argc));
}
