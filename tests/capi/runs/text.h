// Text that grows, for programs in C that write down what happens.

#ifndef GRAPNEL_TESTS_CAPI_RUNS_TEXT_H_
#define GRAPNEL_TESTS_CAPI_RUNS_TEXT_H_

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// Zero-initialize before first use.
typedef struct text {
  char* data;  // NUL-terminated; NULL if nothing was appended.
  size_t size;
} text;

void text_append_bytes(text* to, const void* bytes, size_t size);
// As printf.
void text_append(text* to, const char* format, ...)
    __attribute__((format(printf, 2, 3)));
void text_clear(text* text);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // GRAPNEL_TESTS_CAPI_RUNS_TEXT_H_
