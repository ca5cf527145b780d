package grapnel_test

import (
	"math"
	"testing"

	"grapnel.dev/grapnel"
)

func TestEveryFloat16ComesBack(t *testing.T) {
	for bits := range 1 << 16 {
		f := grapnel.Float16(bits)
		number := f.Float32()
		got := grapnel.ToFloat16(number)
		if number != number {
			if back := got.Float32(); back == back {
				t.Errorf("%#04x: is no NaN any more", bits)
			}
		} else if got != f {
			t.Errorf("%#04x: %v came back as %#04x", bits, number, got)
		}
	}
}

func TestEveryBFloat16ComesBack(t *testing.T) {
	for bits := range 1 << 16 {
		f := grapnel.BFloat16(bits)
		number := f.Float32()
		got := grapnel.ToBFloat16(number)
		if number != number {
			if back := got.Float32(); back == back {
				t.Errorf("%#04x: is no NaN any more", bits)
			}
		} else if got != f {
			t.Errorf("%#04x: %v came back as %#04x", bits, number, got)
		}
	}
}

func TestNumbersAreRoundedToTheNearest(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, test := range []struct{ number, float16, bfloat16 float32 }{
		{1 + 0x1p-11, 1, 1},                  // Half way: to the even.
		{1 + 0x3p-11, 1 + 0x1p-9, 1},         //
		{1 + 0x1p-8, 1 + 0x1p-8, 1},          //
		{1 + 0x3p-8, 1 + 0x3p-8, 1 + 0x1p-6}, //
		{65504, 65504, 65536},                // The largest float16.
		{65519.996, 65504, 65536},            //
		{65520, inf, 65536},                  //
		{3.4028235e38, inf, inf},             // The largest float32.
		{0x1p-24, 0x1p-24, 0x1p-24},          // The least float16.
		{0x1p-25, 0, 0x1p-25},                //
		{0x1.000002p-25, 0x1p-24, 0x1p-25},   //
		{-0x1.8p-24, -0x1p-23, -0x1.8p-24},   //
		{0x1.ff8p-15, 0x1.ff8p-15, 0x1p-14},  // With a leading zero.
		{0x1.ffcp-15, 0x1p-14, 0x1p-14},      // A carry into the exponent.
		{inf, inf, inf},
	} {
		if got := grapnel.ToFloat16(test.number).Float32(); got != test.float16 {
			t.Errorf("%v: float16: got %v, want %v", test.number, got, test.float16)
		}
		if got := grapnel.ToBFloat16(test.number).Float32(); got != test.bfloat16 {
			t.Errorf("%v: bfloat16: got %v, want %v", test.number, got, test.bfloat16)
		}
	}
}
