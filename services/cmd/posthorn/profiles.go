package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"

	"posthorn/services/internal/process"
)

type profileFlags struct {
	hostFlags
	PprofAddr string `type:"address" help:"Address of Go's profiles (/debug/pprof/), on loopback only. Unset: none." env:"POSTHORN_PPROF_ADDR"`
}

// addProfiles serves profiles of the process, on loopback only: they expose its
// memory.
func (p *program) addProfiles(ctx context.Context, flags profileFlags) error {
	if flags.PprofAddr == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(flags.PprofAddr)
	if err != nil {
		return fmt.Errorf("POSTHORN_PPROF_ADDR: %w", err)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("POSTHORN_PPROF_ADDR: %s is not on loopback", flags.PprofAddr)
	}
	hosts, err := flags.on(flags.PprofAddr)
	if err != nil {
		return err
	}
	listener, err := process.Listen(ctx, flags.PprofAddr)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	p.group.Add("profiles", process.Serve(listener, process.ForFew, hosts.Handler(mux)))
	return nil
}
