package process_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"posthorn/services/internal/process"
)

func TestPartsStopInOrderEachDrainedBeforeTheNext(t *testing.T) {
	t.Parallel()
	var g process.Group
	var log []string
	started := make(chan struct{}, 3)
	for _, name := range []string{"intake", "work"} {
		g.Add(name, func(ctx context.Context) error {
			started <- struct{}{}
			<-ctx.Done()
			log = append(log, name)
			return nil
		})
	}
	g.Close("database", func() error { log = append(log, "database"); return nil })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-started; <-started; cancel() }()
	if err := g.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"intake", "work", "database"}, log); diff != "" {
		t.Errorf("order of stopping (-want +got):\n%s", diff)
	}
}

func TestAPartThatFailsStopsTheOthers(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, end := range map[string]error{"fails": broken, "returns": nil} {
		var g process.Group
		stopped := false
		g.Add("good", func(ctx context.Context) error { <-ctx.Done(); stopped = true; return nil })
		g.Add("bad", func(context.Context) error { return end })
		err := g.Run(t.Context())
		if err == nil || !strings.HasPrefix(err.Error(), "bad: ") || end != nil && !errors.Is(err, end) {
			t.Errorf("%s: Run = %v, want the error of the part", name, err)
		}
		if !stopped {
			t.Errorf("%s: the other part was not stopped", name)
		}
	}
}

func TestAPortThatIsTakenIsTold(t *testing.T) {
	t.Parallel()
	l, err := process.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	_, err = process.Listen(t.Context(), l.Addr().String())
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if !errors.Is(err, process.ErrPortTaken) || !strings.Contains(err.Error(), "ss -ltnp 'sport = :"+port+"'") {
		t.Errorf("Listen = %v, want ErrPortTaken and how to find the process", err)
	}
	if _, err := process.Listen(t.Context(), "127.0.0.1:70000"); err == nil || errors.Is(err, process.ErrPortTaken) {
		t.Errorf("Listen on a port that cannot be = %v", err)
	}
}
