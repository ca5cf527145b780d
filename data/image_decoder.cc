#include "grapnel/data/image_decoder.h"

#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

// jpeglib.h needs <cstdio> before it.
#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grapnel/base/status_macros.h"

// Both libraries report errors by a function that must not return. Ours jumps.
// The rule that makes it safe: a function that calls setjmp, and what runs
// between it and the library, holds nothing with a destructor, and all that it
// changes lives in a struct that its caller owns.

namespace grapnel {
namespace {

absl::StatusOr<std::unique_ptr<uint8_t[]>> AllocatePixels(int64_t height,
                                                          int64_t width,
                                                          int channels) {
  if (height > kMaxImageSide || width > kMaxImageSide ||
      height * width > kMaxImagePixels) {
    return absl::ResourceExhaustedError(
        absl::StrCat("must have at most ", kMaxImageSide, " pixels a side and ",
                     kMaxImagePixels, " in all, is ", height, " x ", width));
  }
  const size_t bytes = static_cast<size_t>(height * width * channels);
  std::unique_ptr<uint8_t[]> pixels(new (std::nothrow) uint8_t[bytes]);
  if (pixels == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for its ", bytes, " bytes of pixels"));
  }
  return pixels;
}

// Replaces RGB by BT.601's luma, in place. The weights add up to 2^16.
void RgbToGray(int64_t pixels, uint8_t* data) {
  for (int64_t i = 0; i < pixels; ++i) {
    const uint8_t* rgb = data + 3 * i;
    data[i] = static_cast<uint8_t>(
        (19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 32768u) >> 16);
  }
}

// --- PNG ---

struct PngDecoder {
  absl::string_view unread;
  png_structp png = nullptr;
  png_infop info = nullptr;
  int passes = 1;
  char message[128] = "";

  ~PngDecoder() { png_destroy_read_struct(&png, &info, nullptr); }
};

void OnPngError(png_structp png, png_const_charp message) {
  auto* decoder = static_cast<PngDecoder*>(png_get_error_ptr(png));
  std::snprintf(decoder->message, sizeof(decoder->message), "%s", message);
  png_longjmp(png, 1);
}

void OnPngWarning(png_structp, png_const_charp) {}

void ReadPng(png_structp png, png_bytep to, size_t n) {
  auto* decoder = static_cast<PngDecoder*>(png_get_io_ptr(png));
  if (n > decoder->unread.size()) png_error(png, "the file is cut short");
  std::memcpy(to, decoder->unread.data(), n);
  decoder->unread.remove_prefix(n);
}

// To the first row, which will have 8 bits a channel and no transparency.
__attribute__((noinline)) bool ReadPngHeader(PngDecoder* d) {
  if (setjmp(png_jmpbuf(d->png))) return false;
  png_set_read_fn(d->png, d, ReadPng);
  // We have our own limits, and a clearer message.
  png_set_user_limits(d->png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
  png_read_info(d->png, d->info);
  return true;
}

__attribute__((noinline)) bool ReadPngPixels(PngDecoder* d, bool to_rgb,
                                             uint8_t* pixels, int64_t height,
                                             int64_t row_bytes) {
  if (setjmp(png_jmpbuf(d->png))) return false;
  png_set_expand(d->png);
  png_set_scale_16(d->png);
  png_set_strip_alpha(d->png);
  if (to_rgb) png_set_gray_to_rgb(d->png);
  d->passes = png_set_interlace_handling(d->png);
  png_read_update_info(d->png, d->info);
  if (png_get_rowbytes(d->png, d->info) != static_cast<size_t>(row_bytes)) {
    png_error(d->png, "rows have an unexpected length");
  }
  for (int pass = 0; pass < d->passes; ++pass) {
    for (int64_t y = 0; y < height; ++y) {
      png_read_row(d->png, pixels + y * row_bytes, nullptr);
    }
  }
  png_read_end(d->png, nullptr);
  return true;
}

absl::StatusOr<Image> DecodePng(absl::string_view file, int channels) {
  PngDecoder decoder;
  decoder.unread = file;
  decoder.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &decoder,
                                       OnPngError, OnPngWarning);
  if (decoder.png != nullptr) {
    decoder.info = png_create_info_struct(decoder.png);
  }
  if (decoder.info == nullptr) {
    return absl::ResourceExhaustedError("no memory to decode a PNG");
  }
  if (!ReadPngHeader(&decoder)) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a valid PNG: ", decoder.message));
  }

  Image image;
  image.height = png_get_image_height(decoder.png, decoder.info);
  image.width = png_get_image_width(decoder.png, decoder.info);
  image.channels = channels;
  const bool colour =
      png_get_color_type(decoder.png, decoder.info) & PNG_COLOR_MASK_COLOR;
  const int decoded = colour ? 3 : channels;
  GRAPNEL_ASSIGN_OR_RETURN(image.pixels,
                           AllocatePixels(image.height, image.width, decoded));
  if (!ReadPngPixels(&decoder, decoded == 3, image.pixels.get(), image.height,
                     image.width * decoded)) {
    return absl::DataLossError(
        absl::StrCat("the PNG is damaged: ", decoder.message));
  }
  if (decoded > channels) {
    RgbToGray(image.height * image.width, image.pixels.get());
  }
  return image;
}

// --- JPEG ---

// A progressive file may have any number of scans of a large image, each of a
// few bytes: decoding would take for ever. Real ones have ten or so.
constexpr int kMaxScans = 500;

struct JpegDecoder {
  jpeg_decompress_struct jpeg;
  jpeg_error_mgr errors;
  jpeg_progress_mgr progress = {};
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX] = "";
  bool created = false;

  ~JpegDecoder() {
    if (created) jpeg_destroy_decompress(&jpeg);
  }
};

JpegDecoder* DecoderOf(j_common_ptr jpeg) {
  return static_cast<JpegDecoder*>(jpeg->client_data);
}

void OnJpegError(j_common_ptr jpeg) {
  jpeg->err->format_message(jpeg, DecoderOf(jpeg)->message);
  std::longjmp(DecoderOf(jpeg)->jump, 1);
}

// libjpeg goes on after damage, with a warning (`level` is -1) and gray pixels.
// We don't, except after what leaves the pixels whole.
void OnJpegMessage(j_common_ptr jpeg, int level) {
  if (level >= 0) return;
  switch (jpeg->err->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
    case JWRN_TOO_MUCH_DATA:
      return;
    default:
      OnJpegError(jpeg);
  }
}

void OnJpegProgress(j_common_ptr jpeg) {
  const auto* decompress = reinterpret_cast<j_decompress_ptr>(jpeg);
  if (decompress->input_scan_number <= kMaxScans) return;
  std::snprintf(DecoderOf(jpeg)->message, JMSG_LENGTH_MAX, "more than %d scans",
                kMaxScans);
  std::longjmp(DecoderOf(jpeg)->jump, 1);
}

__attribute__((noinline)) bool ReadJpegHeader(JpegDecoder* d,
                                              const unsigned char* data,
                                              unsigned long size) {
  d->jpeg.err = jpeg_std_error(&d->errors);
  d->errors.error_exit = OnJpegError;
  d->errors.emit_message = OnJpegMessage;
  d->jpeg.client_data = d;
  if (setjmp(d->jump)) return false;
  jpeg_create_decompress(&d->jpeg);
  d->created = true;
  d->progress.progress_monitor = OnJpegProgress;
  d->jpeg.progress = &d->progress;
  jpeg_mem_src(&d->jpeg, data, size);
  jpeg_read_header(&d->jpeg, TRUE);
  return true;
}

__attribute__((noinline)) bool ReadJpegPixels(JpegDecoder* d, int channels,
                                              uint8_t* pixels) {
  if (setjmp(d->jump)) return false;
  d->jpeg.out_color_space = channels == 3 ? JCS_RGB : JCS_GRAYSCALE;
  jpeg_start_decompress(&d->jpeg);
  while (d->jpeg.output_scanline < d->jpeg.output_height) {
    JSAMPROW row = pixels + static_cast<size_t>(d->jpeg.output_scanline) *
                                d->jpeg.output_width * channels;
    jpeg_read_scanlines(&d->jpeg, &row, 1);
  }
  jpeg_finish_decompress(&d->jpeg);
  return true;
}

absl::StatusOr<Image> DecodeJpeg(absl::string_view file, int channels) {
  JpegDecoder decoder;
  if (!ReadJpegHeader(&decoder,
                      reinterpret_cast<const unsigned char*>(file.data()),
                      file.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("not a valid JPEG: ", decoder.message));
  }
  const J_COLOR_SPACE color = decoder.jpeg.jpeg_color_space;
  if (color == JCS_CMYK || color == JCS_YCCK) {
    return absl::UnimplementedError(
        "is a JPEG in CMYK, which can't be read: convert it to RGB");
  }
  Image image;
  image.height = decoder.jpeg.image_height;
  image.width = decoder.jpeg.image_width;
  image.channels = channels;
  GRAPNEL_ASSIGN_OR_RETURN(image.pixels,
                           AllocatePixels(image.height, image.width, channels));
  if (!ReadJpegPixels(&decoder, channels, image.pixels.get())) {
    return absl::DataLossError(
        absl::StrCat("the JPEG is damaged: ", decoder.message));
  }
  return image;
}

}  // namespace

absl::StatusOr<Image> DecodeImage(absl::string_view file, int channels) {
  GRAPNEL_RET_CHECK(channels == 1 || channels == 3);
  constexpr absl::string_view kPng("\x89PNG\r\n\x1a\n", 8);
  constexpr absl::string_view kJpeg("\xff\xd8\xff", 3);
  if (file.substr(0, kPng.size()) == kPng) return DecodePng(file, channels);
  if (file.substr(0, kJpeg.size()) == kJpeg) return DecodeJpeg(file, channels);
  return absl::InvalidArgumentError(
      file.empty() ? "the file is empty" : "is neither a PNG nor a JPEG");
}

}  // namespace grapnel
