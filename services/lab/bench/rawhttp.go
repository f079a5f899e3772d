package bench

import (
	"context"
	"time"
)

// Posts measures how many plain POSTs of the payload the receiver accepts per
// second, directly from the generator.
func (s *Site) Posts(ctx context.Context, connections, requests int) (float64, error) {
	if err := s.Expect(ctx, requests); err != nil {
		return 0, err
	}
	out, err := Load{
		Addr: s.deliveries, Path: "/raw", Connections: connections, Requests: requests,
		Body: func(dst []byte, i int, start time.Time) []byte { return appendEvent(dst, eventType, i, start) },
	}.Run(ctx)
	if err != nil {
		return 0, err
	}
	return out.Rate(), nil
}
