/* What tests in C ask of the C API. The first thing that doesn't hold ends the
 * program. */
#ifndef GRAPNEL_TESTS_CAPI_REQUIRE_H_
#define GRAPNEL_TESTS_CAPI_REQUIRE_H_

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grapnel/grapnel.h"

#define REQUIRE(condition)                                               \
  do {                                                                   \
    if (!(condition)) RequireFailed(__FILE__, __LINE__, #condition, ""); \
  } while (0)

/* That a call succeeds; that it fails with this code, and with a message that
 * has `part` in it. */
#define REQUIRE_OK(call) RequireOk(__FILE__, __LINE__, #call, call)
#define REQUIRE_FAILS(call, code, part) \
  RequireFails(__FILE__, __LINE__, #call, call, code, part)

/* A string literal as pointer and size. */
#define TEXT(literal) literal, sizeof(literal) - 1

static inline void RequireFailed(const char* file, int line, const char* what,
                                 const char* message) {
  fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, message);
  exit(1);
}

static inline void RequireOk(const char* file, int line, const char* what,
                             grapnel_status* status) {
  if (status != NULL) {
    RequireFailed(file, line, what, grapnel_status_message(status));
  }
}

static inline void RequireFails(const char* file, int line, const char* what,
                                grapnel_status* status, grapnel_code code,
                                const char* part) {
  if (status == NULL) RequireFailed(file, line, what, "succeeds");
  if (grapnel_status_code(status) != code ||
      strstr(grapnel_status_message(status), part) == NULL) {
    fprintf(stderr, "code %d, not %d and \"%s\"\n",
            (int)grapnel_status_code(status), (int)code, part);
    RequireFailed(file, line, what, grapnel_status_message(status));
  }
  grapnel_status_destroy(status);
}

#endif  // GRAPNEL_TESTS_CAPI_REQUIRE_H_
