#include "examples/c_train/digits_data.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kSide = 8, kPixels = kSide * kSide, kPathSize = 4096 };

typedef struct digits {
  int64_t size;
  unsigned char* pixels;  // size * kPixels, each 0 to 16.
  unsigned char* labels;  // size
} digits;

static grapnel_status* error_in(const char* path, const char* problem) {
  char message[kPathSize + 100];
  snprintf(message, sizeof(message), "%s: %s", path, problem);
  return grapnel_status_create(GRAPNEL_INVALID_ARGUMENT, message,
                               strlen(message));
}

static uint32_t big_endian(const unsigned char* bytes) {
  return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 |
         (uint32_t)bytes[2] << 8 | (uint32_t)bytes[3];
}

// Reads what is behind the header of an IDX file of unsigned bytes: of images,
// if `rank` is 3, or of labels, if it is 1. The caller frees *bytes.
static grapnel_status* read_open_idx(FILE* file, const char* path, size_t rank,
                                     int64_t* count, unsigned char** bytes) {
  unsigned char header[16] = {0};
  const unsigned char magic[4] = {0, 0, 8, (unsigned char)rank};
  const size_t header_size = 4 + 4 * rank;
  if (fread(header, 1, header_size, file) != header_size ||
      memcmp(header, magic, sizeof(magic)) != 0 ||
      (rank == 3 &&
       (big_endian(header + 8) != kSide || big_endian(header + 12) != kSide))) {
    return error_in(path, "is no IDX file of digits");
  }
  const size_t items = big_endian(header + 4);
  const size_t size = items * (rank == 3 ? kPixels : 1);
  unsigned char* const read = malloc(size + 1);
  if (read == NULL) return error_in(path, "needs more memory than there is");
  if (fread(read, 1, size + 1, file) != size) {
    free(read);
    return error_in(path, "isn't as long as its header says");
  }
  *count = (int64_t)items;
  *bytes = read;
  return NULL;
}

static grapnel_status* read_idx(const char* path, size_t rank, int64_t* count,
                                unsigned char** bytes) {
  FILE* const file = fopen(path, "rb");
  if (file == NULL) return error_in(path, strerror(errno));
  grapnel_status* const status = read_open_idx(file, path, rank, count, bytes);
  fclose(file);
  return status;
}

static void destroy_digits(void* user_data) {
  digits* const it = user_data;
  free(it->pixels);
  free(it->labels);
  free(it);
}

static grapnel_status* read_digits(const char* dir, const char* part,
                                   digits* it) {
  char path[kPathSize];
  int64_t num_labels = 0;
  snprintf(path, sizeof(path), "%s/%s-images-idx3-ubyte", dir, part);
  grapnel_status* status = read_idx(path, 3, &it->size, &it->pixels);
  if (status != NULL) return status;
  snprintf(path, sizeof(path), "%s/%s-labels-idx1-ubyte", dir, part);
  status = read_idx(path, 1, &num_labels, &it->labels);
  if (status != NULL) return status;
  return num_labels == it->size ? NULL
                                : error_in(path, "isn't a label an image");
}

// A thread of the library's calls this: see num_workers in the config. Writes
// into the batch's own memory.
static grapnel_status* get_batch(void* user_data, const int64_t* indices,
                                 size_t count, grapnel_tensors* batch) {
  const digits* const it = user_data;
  const int64_t shape[] = {(int64_t)count, 1, kSide, kSide};
  void* input = NULL;
  void* target = NULL;
  grapnel_status* status = grapnel_tensors_add_new(
      batch, "input", 5, GRAPNEL_FLOAT32, shape, 4, &input);
  if (status != NULL) return status;
  status = grapnel_tensors_add_new(batch, "target", 6, GRAPNEL_INT64, shape, 1,
                                   &target);
  if (status != NULL) return status;
  float* const images = input;
  int64_t* const labels = target;
  for (size_t i = 0; i < count; ++i) {
    const unsigned char* const pixels = it->pixels + indices[i] * kPixels;
    for (size_t p = 0; p < kPixels; ++p) {
      images[i * kPixels + p] = (float)pixels[p] / 16;
    }
    labels[i] = it->labels[indices[i]];
  }
  return NULL;
}

grapnel_status* digits_set_data(grapnel_runner_options* options,
                                grapnel_mode mode, const char* dir,
                                const char* part) {
  digits* const it = calloc(1, sizeof(*it));
  if (it == NULL) return error_in(dir, strerror(ENOMEM));
  grapnel_status* status = read_digits(dir, part, it);
  if (status == NULL) {
    const grapnel_dataset_callbacks callbacks = {
        .struct_size = sizeof(callbacks),
        .size = it->size,
        .thread_safe = 1,  // Nothing is written.
        .get_batch = get_batch,
        .destroy = destroy_digits,
    };
    status = grapnel_runner_options_set_dataset(options, mode, &callbacks, it);
  }
  // Taken on success only.
  if (status != NULL) destroy_digits(it);
  return status;
}
