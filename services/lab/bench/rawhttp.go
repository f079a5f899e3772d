package bench

import (
	"context"
	"time"
)

// Posts is how many plain POSTs of the payload the receiver takes in a second,
// from the generator directly.
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
