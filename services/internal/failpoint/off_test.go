//go:build !failpoints

package failpoint_test

import (
	"errors"
	"testing"

	"posthorn/services/internal/failpoint"
)

func TestAProgramWithoutFailpointsRefusesThem(t *testing.T) {
	t.Parallel()
	if err := failpoint.Arm("relay.after_publish=kill"); !errors.Is(err, failpoint.ErrNotBuilt) {
		t.Errorf("Arm: %v, want ErrNotBuilt", err)
	}
	if err := failpoint.Arm(""); err != nil {
		t.Error(err)
	}
}

// BenchmarkHit is an empty loop: Hit is inlined to nothing.
func BenchmarkHit(b *testing.B) {
	for b.Loop() {
		failpoint.Hit("relay.after_publish")
	}
}
