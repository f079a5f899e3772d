package privateserver_test

import (
	"strings"
	"testing"

	"posthorn/services/internal/privateserver"
)

func TestNodesMakeACluster(t *testing.T) {
	t.Parallel()
	first := startRabbitMQ(t, privateserver.Options{Dir: folder(t)})
	second := startRabbitMQ(t, privateserver.Options{Dir: folder(t), Join: first})
	if first.Password() != second.Password() {
		t.Error("the nodes have different passwords")
	}
	running := func() string {
		t.Helper()
		out, err := first.Ctl(t.Context(), "eval", "rabbit_nodes:all_running().")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if got := running(); strings.Count(got, "@localhost") != 2 {
		t.Errorf("running nodes: %s, want two", got)
	}
	if err := second.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := second.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := running(); strings.Count(got, "@localhost") != 2 {
		t.Errorf("running nodes after a restart: %s, want two", got)
	}
}
