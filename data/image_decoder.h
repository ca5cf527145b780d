// PNG and JPEG files to pixels.

#ifndef GRAPNEL_DATA_IMAGE_DECODER_H_
#define GRAPNEL_DATA_IMAGE_DECODER_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace grapnel {

// Larger images are refused before memory is taken for them.
constexpr int64_t kMaxImageSide = 65535;
constexpr int64_t kMaxImagePixels = int64_t{1} << 28;

struct Image {
  int64_t height = 0;
  int64_t width = 0;
  int channels = 0;                   // 1, gray, or 3, RGB.
  std::unique_ptr<uint8_t[]> pixels;  // (height, width, channels)
};

// Decodes a whole PNG or JPEG file, told apart by their first bytes. `channels`
// is 1 or 3; colour becomes gray by BT.601's weights, gray becomes three equal
// channels. Of 16 bits a channel the upper 8 are kept, transparency is dropped,
// colour profiles are ignored.
//   kInvalidArgument: it is neither, or its header is wrong or cut short.
//   kDataLoss: what follows the header is damaged or cut short.
//   kUnimplemented: a JPEG in CMYK.
//   kResourceExhausted: it is too large, or there is no memory.
absl::StatusOr<Image> DecodeImage(absl::string_view file, int channels);

}  // namespace grapnel

#endif  // GRAPNEL_DATA_IMAGE_DECODER_H_
