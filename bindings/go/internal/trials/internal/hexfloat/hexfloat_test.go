package hexfloat

import (
	"math"
	"testing"
)

func TestFormatIsGlibcs(t *testing.T) {
	for _, test := range []struct {
		number float64
		want   string // As printf in C gave it.
	}{
		{0, "0x0p+0"},
		{math.Copysign(0, -1), "-0x0p+0"},
		{1, "0x1p+0"},
		{-3, "-0x1.8p+1"},
		{0.1, "0x1.999999999999ap-4"},
		{1e300, "0x1.7e43c8800759cp+996"},
		{0x1p-1022, "0x1p-1022"},
		{5e-324, "0x0.0000000000001p-1022"},
		{0x1.8p-1023, "0x0.cp-1022"},
		{math.Inf(1), "inf"},
		{math.Inf(-1), "-inf"},
		{math.NaN(), "nan"},
	} {
		if got := Format(test.number); got != test.want {
			t.Errorf("%v: got %s, want %s", test.number, got, test.want)
		}
	}
}
