package grapnel_test

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"testing"

	"grapnel.dev/grapnel"
)

func recordsFile(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "scalars.json")
	check(t, os.WriteFile(path, []byte(text), 0o666))
	return path
}

// What a run has written is what it has told of.
func TestRecordsAreReadAsTheyWereTold(t *testing.T) {
	noLeaks(t)
	var told []float64
	config, options := lineConfig(t), lineOptions()
	options.Overrides = []string{"default_hooks.logger.interval=5"}
	options.Records = func(mode grapnel.Mode, _ int64, record *grapnel.Scalars) error {
		if loss, ok := record.Find("loss"); ok && mode == grapnel.ModeTrain {
			told = append(told, loss)
		}
		return nil
	}
	runner := newRunner(t, config, options)
	check(t, runner.Train(background))
	check(t, runner.Close())
	paths := must[[]string](t)(filepath.Glob(config.GetWorkDir() + "/*/vis_data/scalars.json"))
	if len(paths) != 1 || len(told) != 4 {
		t.Fatalf("got %v, %v", paths, told)
	}
	at := 0
	for record, err := range grapnel.ReadRecords(paths[0]) {
		check(t, err)
		iter, ok := record.Find("iter")
		if !ok {
			continue // Of a validation.
		}
		loss, _ := record.Find("loss")
		step, _ := record.Find("step")
		if iter != float64(5*(at+1)) || step != iter || loss != told[at] {
			t.Errorf("got iteration %v, step %v, loss %v, want %v", iter, step, loss, told[at])
		}
		at++
	}
	if at != 4 {
		t.Errorf("got %d records", at)
	}
}

func TestRecordsHaveAnyNumberAndName(t *testing.T) {
	path := recordsFile(t, `{"a, \"b\": \u00e4": NaN, "c": -Infinity, "d": 1e-05, "step": 3}
{}
{"loss": 1, "st`)
	var records []*grapnel.Scalars
	for record, err := range grapnel.ReadRecords(path) {
		check(t, err)
		records = append(records, record)
	}
	if len(records) != 2 || records[0].Len() != 4 || records[1].Len() != 0 {
		t.Fatalf("got %v", records)
	}
	odd, ok := records[0].Find(`a, "b": ä`)
	c, _ := records[0].Find("c")
	d, _ := records[0].Find("d")
	if !ok || !math.IsNaN(odd) || !math.IsInf(c, -1) || d != 1e-5 {
		t.Errorf("got %v, %v, %v, %v", odd, ok, c, d)
	}
	for range grapnel.ReadRecords(path) {
		break
	}
}

func TestWhatIsNoRecordIsAnError(t *testing.T) {
	for _, test := range []struct{ line, text string }{
		{"loss: 1", "line 2: is no record"},
		{`{loss: 1}`, "has no name"},
		{`{"loss}`, "has no name"},
		{`{"loss": many}`, `"loss": must be a number, is "many"`},
		{`{"loss": 1, "loss": 2}`, `"loss" is there`},
	} {
		n := 0
		for _, err := range grapnel.ReadRecords(recordsFile(t, "{}\n"+test.line+"\n{}\n")) {
			if n++; n == 2 {
				wantError(t, err, grapnel.ErrDataLoss, test.text)
			}
		}
		if n != 2 {
			t.Errorf("%s: got %d", test.line, n)
		}
	}
	for _, err := range grapnel.ReadRecords(t.TempDir() + "/none") {
		wantError(t, err, grapnel.ErrNotFound, "none")
		wantError(t, err, fs.ErrNotExist, "")
	}
}
