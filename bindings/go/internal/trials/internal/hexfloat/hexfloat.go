// Package hexfloat prints numbers as printf's %a does in glibc, to the bit.
package hexfloat

import (
	"math"
	"strconv"
	"strings"
)

// Format returns the number in hexadecimal: "0x1.8p+1", "inf", "-nan".
func Format(f float64) string {
	sign := ""
	if math.Signbit(f) {
		sign, f = "-", math.Abs(f)
	}
	switch {
	case math.IsNaN(f):
		return sign + "nan"
	case math.IsInf(f, 0):
		return sign + "inf"
	case f != 0 && f < 0x1p-1022:
		fraction := strconv.FormatUint(math.Float64bits(f)|1<<52, 16)[1:] // All 13 digits.
		return sign + "0x0." + strings.TrimRight(fraction, "0") + "p-1022"
	}
	digits, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'x', -1, 64), "p")
	number := strings.TrimLeft(exponent[1:], "0")
	if number == "" {
		number = "0"
	}
	return sign + digits + "p" + exponent[:1] + number
}
