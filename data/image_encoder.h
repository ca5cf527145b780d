// Makes the image files that tests read.

#ifndef GRAPNEL_DATA_IMAGE_ENCODER_H_
#define GRAPNEL_DATA_IMAGE_ENCODER_H_

#include <cstdint>
#include <string>
#include <vector>

namespace grapnel {

enum class PngKind {
  kGray,    // 1 byte a pixel.
  kGray1,   // 1 bit; a row is a whole number of bytes.
  kGray16,  // 2 bytes, most significant first.
  kGrayAlpha,
  kPalette,  // 1 byte, an index into red, green, blue, white.
  kRgb,
  kRgb16,
  kRgba,
};

// `pixels` are the rows as they lie in the file before filtering.
std::string EncodePng(PngKind kind, int height, int width,
                      const std::vector<uint8_t>& pixels,
                      bool interlaced = false);

enum class JpegKind { kGray, kRgb, kCmyk };

// At quality 100, without chroma subsampling. `pixels`: (height, width, C).
std::string EncodeJpeg(JpegKind kind, int height, int width,
                       const std::vector<uint8_t>& pixels,
                       bool progressive = false);

}  // namespace grapnel

#endif  // GRAPNEL_DATA_IMAGE_ENCODER_H_
