module grapnel.dev/examples/go_service

go 1.23

require (
	google.golang.org/protobuf v1.36.11
	grapnel.dev/grapnel v0.0.0
)

replace grapnel.dev/grapnel => ../../bindings/go
