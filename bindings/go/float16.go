package grapnel

import "math"

// A Float16 is a number of IEEE 754's binary16.
type Float16 uint16

// ToFloat16 returns the nearest one, of two the even; infinity for what is too
// large.
func ToFloat16(f float32) Float16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	exponent := int(bits>>23&0xff) - 127 + 15
	fraction := bits & 0x7fffff
	switch {
	case bits&0x7fffffff > 0x7f800000: // NaN stays one.
		return Float16(sign | 0x7e00 | uint16(fraction>>13))
	case exponent >= 31:
		return Float16(sign | 0x7c00)
	case exponent <= 0: // Without the leading one, or nothing.
		shift := uint(14 - exponent)
		if shift > 24 {
			return Float16(sign)
		}
		return Float16(sign | uint16(nearest(fraction|0x800000, shift)))
	default: // A carry of the fraction is the next exponent.
		return Float16(sign | uint16(nearest(uint32(exponent)<<23|fraction, 13)))
	}
}

// Float32 returns the same number.
func (f Float16) Float32() float32 {
	sign := uint32(f&0x8000) << 16
	exponent := uint32(f >> 10 & 0x1f)
	fraction := uint32(f & 0x3ff)
	switch exponent {
	case 0:
		number := float32(fraction) * (1.0 / (1 << 24))
		return math.Float32frombits(sign | math.Float32bits(number))
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	default:
		return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
	}
}

// A BFloat16 is the upper half of a float32.
type BFloat16 uint16

// ToBFloat16 returns the nearest one, of two the even.
func ToBFloat16(f float32) BFloat16 {
	bits := math.Float32bits(f)
	if bits&0x7fffffff > 0x7f800000 { // NaN stays one.
		return BFloat16(bits>>16 | 0x40)
	}
	return BFloat16(nearest(bits, 16))
}

// Float32 returns the same number.
func (f BFloat16) Float32() float32 { return math.Float32frombits(uint32(f) << 16) }

// nearest returns value >> shift, rounded to the nearest, of two to the even.
func nearest(value uint32, shift uint) uint32 {
	half := uint32(1) << (shift - 1)
	odd := value >> shift & 1
	return uint32((uint64(value) + uint64(half) - 1 + uint64(odd)) >> shift)
}
