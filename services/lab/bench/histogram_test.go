package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestAQuantileIsNeverBelowTheTrueOneAndCloseToIt(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	var (
		h    Histogram
		half [2]Histogram
		all  []time.Duration
	)
	for i := range 20_000 {
		d := time.Duration(random.ExpFloat64() * float64(time.Millisecond))
		h.Record(d)
		half[i%2].Record(d)
		all = append(all, d)
	}
	slices.Sort(all)
	var merged Histogram
	merged.Merge(&half[0])
	merged.Merge(&half[1])
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := all[max(0, int(q*float64(len(all))+0.999999)-1)]
		got := h.Quantile(q)
		if got < exact || float64(got) > float64(exact)*(1+1.0/subBuckets)+1 {
			t.Errorf("quantile %v is %v, want %v", q, got, exact)
		}
		if m := merged.Quantile(q); m != got {
			t.Errorf("quantile %v of the merged ones is %v, want %v", q, m, got)
		}
	}
	if h.Max != all[len(all)-1] || h.Total != int64(len(all)) {
		t.Errorf("max %v of %d, want %v of %d", h.Max, h.Total, all[len(all)-1], len(all))
	}
}

func TestEveryDurationIsInABucketThatEndsAtOrAfterIt(t *testing.T) {
	t.Parallel()
	for _, d := range []time.Duration{0, 1, 63, 64, 65, 127, 128, 129, 1023, 1024, time.Microsecond, time.Second, time.Hour, 1<<62 + 12345} {
		i := bucketOf(d)
		if end := bucketEnd(i); end < d {
			t.Errorf("%d is in bucket %d, which ends at %d", d, i, end)
		}
		if i > 0 && bucketEnd(i-1) >= d {
			t.Errorf("%d is in bucket %d, but the one before ends at %d", d, i, bucketEnd(i-1))
		}
	}
}

func TestAnEmptyHistogramHasNoLatency(t *testing.T) {
	t.Parallel()
	if got := new(Histogram).Quantile(0.99); got != 0 {
		t.Errorf("got %v", got)
	}
}
