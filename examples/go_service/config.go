package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"grapnel.dev/grapnel/grapnelpb"
)

//go:embed service.textproto
var defaultConfig []byte

// readConfig returns the config of a run below workDir. path may be "", for the
// one that the program has.
func readConfig(path, workDir string) (*grapnelpb.RunnerConfig, error) {
	text, name := defaultConfig, "the service's own config"
	if path != "" {
		var err error
		if text, err = os.ReadFile(path); err != nil {
			return nil, err
		}
		name = path
	}
	config := new(grapnelpb.RunnerConfig)
	if err := prototext.Unmarshal(text, config); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	config.WorkDir = proto.String(filepath.Join(workDir, "run"))
	config.Resume = proto.Bool(true)
	return config, nil
}
