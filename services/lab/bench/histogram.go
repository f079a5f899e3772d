package bench

import (
	"math/bits"
	"time"
)

// buckets per power of two: a value is known to 1/64 of itself.
const subBuckets = 64

// Histogram counts durations in buckets that grow with them. The zero value is
// ready to use. It is not safe for concurrent use; merge one per goroutine.
type Histogram struct {
	// Counts are by bucket; the slice is only as long as needed.
	Counts []int64
	Total  int64
	Max    time.Duration
	Sum    time.Duration
}

// Record counts a duration; a negative one counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	i := bucketOf(d)
	if i >= len(h.Counts) {
		h.Counts = append(h.Counts, make([]int64, i+1-len(h.Counts))...)
	}
	h.Counts[i]++
	h.Total++
	h.Sum += d
	h.Max = max(h.Max, d)
}

// Merge adds the counts of another histogram.
func (h *Histogram) Merge(o *Histogram) {
	if len(o.Counts) > len(h.Counts) {
		h.Counts = append(h.Counts, make([]int64, len(o.Counts)-len(h.Counts))...)
	}
	for i, n := range o.Counts {
		h.Counts[i] += n
	}
	h.Total += o.Total
	h.Sum += o.Sum
	h.Max = max(h.Max, o.Max)
}

// Quantile is the duration that the fraction q of all does not exceed, rounded
// up to its bucket's end; 0 if nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	need := int64(q*float64(h.Total) + 0.999999)
	var seen int64
	for i, n := range h.Counts {
		if seen += n; n > 0 && seen >= need {
			return min(bucketEnd(i), h.Max)
		}
	}
	return h.Max
}

// Below 64 ns each value has its bucket; above, each power of two has 64.
func bucketOf(d time.Duration) int {
	if d < subBuckets {
		return int(d)
	}
	shift := bits.Len64(uint64(d)) - bits.Len(subBuckets)
	return shift*subBuckets + int(d>>shift)
}

func bucketEnd(i int) time.Duration {
	if i < subBuckets {
		return time.Duration(i)
	}
	shift := i/subBuckets - 1
	return time.Duration(i%subBuckets+subBuckets+1)<<shift - 1
}
