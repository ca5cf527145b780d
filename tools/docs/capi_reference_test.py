#!/usr/bin/env python3
"""What the header says is on the page, and a function of which it says nothing is named."""

import unittest

import capi_reference

HEADER = """\
/* A library.
 *
 * Conventions:
 *
 *  1. Errors. A function that can fail returns a
 * grapnel_status*.
 */
#ifndef GRAPNEL_GRAPNEL_H_
#define GRAPNEL_GRAPNEL_H_

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status ------------------------------------------------------------- */

#define GRAPNEL_VERSION_MAJOR 0

/* More may
 * come. */
typedef int32_t grapnel_code;
enum {
  GRAPNEL_OK = 0,
  /* Not one; it isn't the end of this. */
  GRAPNEL_CANCELLED = 1
};

/* An error, with *message, of <T> and a const char*. Zero-
 * initialize it.
 *
 * See grapnel_status_code, grapnel_status_new. */
typedef struct grapnel_status grapnel_status;

GRAPNEL_API GRAPNEL_MUST_USE grapnel_status* grapnel_status_create(
    grapnel_code code, const char* message, size_t message_size,
    grapnel_status** out);

/* What both do. */
GRAPNEL_API grapnel_code grapnel_status_code(const grapnel_status* status);
GRAPNEL_API void
grapnel_status_destroy(grapnel_status* status);

/* ---- What runs are made of ---------------------------------------------- */

typedef void (*grapnel_log_callback)(void* user_data, const char* message);

typedef struct grapnel_hook_callbacks {
  size_t struct_size; /* sizeof(grapnel_hook_callbacks) */

  void (*destroy)(void* user_data); /* Once. */
} grapnel_hook_callbacks;

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* GRAPNEL_GRAPNEL_H_ */
"""

PAGE = """\
1. [Status](#status)
2. [What runs are made of](#what-runs-are-made-of)

A library.

Conventions:

1. Errors. A function that can fail returns a [`grapnel_status*`](#grapnel_status-grapnel_status_create).

## Status

```c
#define GRAPNEL_VERSION_MAJOR 0
```

### grapnel_code

```c
typedef int32_t grapnel_code;
enum {
  GRAPNEL_OK = 0,
  /* Not one; it isn't the end of this. */
  GRAPNEL_CANCELLED = 1
};
```

More may come.

### grapnel_status, grapnel_status_create

```c
typedef struct grapnel_status grapnel_status;

grapnel_status* grapnel_status_create(
    grapnel_code code, const char* message, size_t message_size,
    grapnel_status** out);
```

An error, with `*message`, of \\<T> and a `const char*`. Zero-initialize it.

See [`grapnel_status_code`](#grapnel_status_code-grapnel_status_destroy), `grapnel_status_new`.

### grapnel_status_code, grapnel_status_destroy

```c
grapnel_code grapnel_status_code(const grapnel_status* status);
void grapnel_status_destroy(grapnel_status* status);
```

What both do.

## What runs are made of

### grapnel_log_callback

```c
typedef void (*grapnel_log_callback)(void* user_data, const char* message);
```

### grapnel_hook_callbacks

```c
typedef struct grapnel_hook_callbacks {
  size_t struct_size; /* sizeof(grapnel_hook_callbacks) */

  void (*destroy)(void* user_data); /* Once. */
} grapnel_hook_callbacks;
```
"""


class CapiReferenceTest(unittest.TestCase):
    maxDiff = None

    def assertRefused(self, change, to, *problems):
        self.assertIn(change, HEADER)
        with self.assertRaises(capi_reference.Undocumented) as caught:
            capi_reference.page(HEADER.replace(change, to), "grapnel.h")
        self.assertEqual(str(caught.exception).split("\n"), [
            f"grapnel.h:{problem}: must have a comment, or share that of its neighbours above"
            for problem in problems])

    def test_all_of_it_is_there(self):
        page = capi_reference.page(HEADER, "grapnel.h")
        self.assertEqual(page[page.index("1. "):], PAGE)

    def test_functions_without_a_comment(self):
        self.assertRefused("/* What both do. */\n", "", "38: grapnel_status_code", "39: grapnel_status_destroy")
        # A blank line parts neighbours,
        self.assertRefused("GRAPNEL_API void\n", "\nGRAPNEL_API void\n", "41: grapnel_status_destroy")
        # and a comment between a type and what is named after it.
        self.assertRefused("\nGRAPNEL_API GRAPNEL_MUST_USE", "\n/* A macro. */\n#define GRAPNEL_X 1\n\nGRAPNEL_API",
                           "37: grapnel_status_create")
        self.assertRefused("grapnel_status_create", "grapnel_make_status", "34: grapnel_make_status")

    def test_text_is_filled_but_has_no_new_bullets(self):
        text = "word " * 21 + "word - word 1. word"
        self.assertEqual(capi_reference._filled(text), "word " * 20 + "word\nword - word 1. word")
        self.assertEqual(capi_reference._filled("1. " + "word " * 23), "1. " + "word " * 20 + "word\n   word word")


if __name__ == "__main__":
    unittest.main()
