#include "grapnel/data/image_encoder.h"

#include <cstddef>
#include <cstdio>
#include <cstdlib>

// jpeglib.h needs <cstdio> before it.
#include <jpeglib.h>
#include <png.h>

namespace grapnel {
namespace {

struct PngLayout {
  int color_type;
  int bit_depth;
  int bits_per_pixel;
};

PngLayout LayoutOf(PngKind kind) {
  switch (kind) {
    case PngKind::kGray:
      return {PNG_COLOR_TYPE_GRAY, 8, 8};
    case PngKind::kGray1:
      return {PNG_COLOR_TYPE_GRAY, 1, 1};
    case PngKind::kGray16:
      return {PNG_COLOR_TYPE_GRAY, 16, 16};
    case PngKind::kGrayAlpha:
      return {PNG_COLOR_TYPE_GRAY_ALPHA, 8, 16};
    case PngKind::kPalette:
      return {PNG_COLOR_TYPE_PALETTE, 8, 8};
    case PngKind::kRgb:
      return {PNG_COLOR_TYPE_RGB, 8, 24};
    case PngKind::kRgb16:
      return {PNG_COLOR_TYPE_RGB, 16, 48};
    case PngKind::kRgba:
      break;
  }
  return {PNG_COLOR_TYPE_RGB_ALPHA, 8, 32};
}

void AppendPng(png_structp png, png_bytep data, size_t n) {
  static_cast<std::string*>(png_get_io_ptr(png))
      ->append(reinterpret_cast<const char*>(data), n);
}

}  // namespace

// Errors end the process: libpng's and libjpeg's own way, good for a test.
std::string EncodePng(PngKind kind, int height, int width,
                      const std::vector<uint8_t>& pixels, bool interlaced) {
  std::string file;
  const PngLayout layout = LayoutOf(kind);
  png_structp png =
      png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
  png_infop info = png_create_info_struct(png);
  png_set_write_fn(png, &file, AppendPng, nullptr);
  png_set_IHDR(png, info, width, height, layout.bit_depth, layout.color_type,
               interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  if (kind == PngKind::kPalette) {
    const png_color palette[] = {
        {255, 0, 0}, {0, 255, 0}, {0, 0, 255}, {255, 255, 255}};
    png_set_PLTE(png, info, palette, 4);
  }
  std::vector<uint8_t> copy = pixels;
  const size_t stride =
      (static_cast<size_t>(width) * layout.bits_per_pixel + 7) / 8;
  copy.resize(stride * height);
  std::vector<png_bytep> rows;
  for (int y = 0; y < height; ++y) rows.push_back(&copy[y * stride]);
  png_set_rows(png, info, rows.data());
  png_write_png(png, info, PNG_TRANSFORM_IDENTITY, nullptr);
  png_destroy_write_struct(&png, &info);
  return file;
}

std::string EncodeJpeg(JpegKind kind, int height, int width,
                       const std::vector<uint8_t>& pixels, bool progressive) {
  jpeg_compress_struct jpeg;
  jpeg_error_mgr errors;
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  unsigned char* data = nullptr;
  unsigned long size = 0;
  jpeg_mem_dest(&jpeg, &data, &size);
  jpeg.image_height = height;
  jpeg.image_width = width;
  jpeg.input_components = kind == JpegKind::kGray  ? 1
                          : kind == JpegKind::kRgb ? 3
                                                   : 4;
  jpeg.in_color_space = kind == JpegKind::kGray  ? JCS_GRAYSCALE
                        : kind == JpegKind::kRgb ? JCS_RGB
                                                 : JCS_CMYK;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, 100, TRUE);
  jpeg.comp_info[0].h_samp_factor = 1;
  jpeg.comp_info[0].v_samp_factor = 1;
  std::vector<jpeg_scan_info> scans;
  if (progressive) {
    // One for the means of all channels, one for the rest of each.
    const int channels = jpeg.num_components;
    scans.push_back({channels, {0, 1, 2, 3}, 0, 0, 0, 0});
    for (int c = 0; c < channels; ++c) {
      scans.push_back({1, {c, 0, 0, 0}, 1, 63, 0, 0});
    }
    jpeg.scan_info = scans.data();
    jpeg.num_scans = static_cast<int>(scans.size());
  }
  jpeg_start_compress(&jpeg, TRUE);
  std::vector<uint8_t> copy = pixels;
  const size_t stride = static_cast<size_t>(width) * jpeg.input_components;
  copy.resize(stride * height);
  while (jpeg.next_scanline < jpeg.image_height) {
    JSAMPROW row = &copy[jpeg.next_scanline * stride];
    jpeg_write_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_compress(&jpeg);
  std::string file(reinterpret_cast<const char*>(data), size);
  std::free(data);
  jpeg_destroy_compress(&jpeg);
  return file;
}

}  // namespace grapnel
