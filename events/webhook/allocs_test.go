//go:build !race

// Under the race detector sync.Pool drops items at random, so allocations are counted without it.

package webhook

import (
	"testing"
	"time"
)

func TestSignAllocatesItsResultOnly(t *testing.T) { //nolint:paralleltest // AllocsPerRun counts the whole program's allocations
	secret, at, body := NewSecret(), time.Unix(1_700_000_000, 0), make([]byte, 1024)
	Sign("evt_1", at, body, secret)
	if n := testing.AllocsPerRun(1000, func() { Sign("evt_1", at, body, secret) }); n > 1 {
		t.Errorf("Sign allocates %v times, want 1", n)
	}
}
