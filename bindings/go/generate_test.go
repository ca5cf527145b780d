package grapnel_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What is committed of grapnelpb is what the installed protos make.
func TestGeneratedCodeIsUpToDate(t *testing.T) {
	if _, err := exec.LookPath("protoc"); err != nil {
		t.Skip("there is no protoc")
	}
	prefix, err := exec.Command("pkg-config", "--variable=prefix", "grapnel").Output()
	check(t, err)
	out := t.TempDir()
	command := exec.Command("./generate.sh", strings.TrimSpace(string(prefix))+"/share/grapnel/proto",
		out)
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v, %s", err, output)
	}
	committed := must[[]string](t)(filepath.Glob("grapnelpb/*.pb.go"))
	generated := must[[]string](t)(filepath.Glob(out + "/*.pb.go"))
	if len(committed) != len(generated) || len(generated) == 0 {
		t.Errorf("%d files are committed, %d generated", len(committed), len(generated))
	}
	for _, path := range generated {
		want := must[[]byte](t)(os.ReadFile(path))
		got, err := os.ReadFile(filepath.Join("grapnelpb", filepath.Base(path)))
		if err != nil || string(got) != string(want) {
			t.Errorf("%s: is another one; run generate.sh (%v)", filepath.Base(path), err)
		}
	}
}
